"""A Celery app whose workers die; what a body is told of its attempt goes to the ledger's folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import chain

from bridge import LeaseLost, current_run
from tests.acceptance.celery_app import celery_app, returning_soon
from tests.acceptance.leases.moments import at_chosen_moments
from tests.acceptance.limits.ledger import LEDGER, noted, now

app = celery_app("leases", returning_soon(3600), result_backend_always_retry=True)
at_chosen_moments(app)


def folder() -> Path:
    return Path(os.environ[LEDGER]).parent


def attempt() -> int:
    """The number of the attempt that executes here, which is noted as well."""
    run = current_run()
    assert run is not None
    with (folder() / f"attempts-{run.run_id}").open("a") as file:
        file.write(f"{run.attempt}\n")
    return run.attempt


@contextmanager
def told(task: Any, name: str) -> Iterator[int]:
    """Lives until it may end, and reports all the while; gives the number of the attempt."""
    number = attempt()
    with noted(task.request.id) as alive:
        try:
            while not (folder() / f"go-{name}").exists():
                task.progress(message=f"attempt {number}")
                signal.sigtimedwait([], 0.02)
                alive()
        except LeaseLost:
            (folder() / f"lost-{task.request.id}").write_text(f"{number} {now()}\n")
            raise
        yield number


@app.task(bind=True, public_result=True)
def long(self: Any, name: str) -> int:
    with told(self, name) as number:
        return number


@app.task(bind=True, public_result=True, reject_on_worker_lost=True)
def rejected(self: Any, name: str) -> int:
    with told(self, name) as number:
        return number


@app.task(bind=True, public_result=True)
def silent(self: Any, name: str) -> int:
    """Reports nothing; its first attempt comes to an end as its name says."""
    number = attempt()
    with noted(self.request.id) as alive:
        while not (folder() / f"go-{name}-{number}").exists():
            signal.sigtimedwait([], 0.02)
            alive()
        if name == "fails" and number == 1:
            raise ValueError
        if name == "again" and number == 1:
            raise self.retry(countdown=0)
    return number


@app.task(bind=True, public_result=True, acks_late=False)
def early(self: Any, name: str) -> int:
    with told(self, name) as number:
        return number


@app.task(bind=True, public_result=True, max_retries=9)
def again(self: Any, name: str) -> int:
    """Is tried again before it gets anywhere."""
    if self.request.retries == 0:
        attempt()
        raise self.retry(countdown=0.05)
    with told(self, name) as number:
        return number


@app.task(bind=True, max_retries=9)
def replaced(self: Any, name: str) -> None:
    """Goes on as `long`."""
    attempt()
    raise self.replace(long.si(name))


@app.task(bind=True, max_retries=9)
def replaced_by_chain(self: Any, name: str) -> None:
    """Goes on as another run, then under its own id."""
    attempt()
    raise self.replace(chain(quick.si(), long.si(name)))


@app.task(bind=True)
def quick(self: Any) -> None:
    attempt()
    with noted(self.request.id):
        pass


@app.task(bind=True, public_result=True)
def gather(self: Any, results: list[int]) -> list[int]:
    attempt()
    with noted(self.request.id):
        return results


@app.task(bind=True, max_retries=1)
def deadly(self: Any) -> None:
    """Takes its worker with it, each time."""
    attempt()
    self._run.flush()
    with noted(self.request.id):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
