"""A Celery app whose runs are silent until they may end, in each way in which a run can be under way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from celery import chord

from tests.acceptance.celery_app import celery_app
from tests.acceptance.limits.ledger import LEDGER, noted

app = celery_app(
    "reaper",
    task_default_queue="default",
    broker_transport_options={},
    result_backend_transport_options={},
)


def until_it_may_end(task: Any, name: str) -> str:
    with noted(task.request.id):
        while not (Path(os.environ[LEDGER]).parent / f"go-{name}").exists():
            signal.sigtimedwait([], 0.05)
    return name


@app.task(bind=True, public_result=True)
def long(self: Any, name: str) -> str:
    return until_it_may_end(self, name)


@app.task(bind=True, public_result=True, concurrency=1)
def limited(self: Any, name: str) -> str:
    return until_it_may_end(self, name)


@app.task(bind=True, public_result=True, max_retries=1)
def again(self: Any, name: str, countdown: float) -> str:
    if not self.request.retries:
        raise self.retry(countdown=countdown)
    return name


@app.task(bind=True, public_result=True)
def fan(self: Any, name: str) -> None:
    """Goes on as a chord, whose body runs under its own id."""
    raise self.replace(chord([long.si(name), long.si(name)], gather.si(name)))


@app.task(bind=True, public_result=True)
def gather(self: Any, name: str) -> str:
    return name
