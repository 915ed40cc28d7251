"""The restarts' app with tasks that linger at their ends: right before a result is stored, or right after."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend

from tests.acceptance.limits.ledger import LEDGER, TICK, noted
from tests.acceptance.restarts.app import app, redis_url

STORED = frozenset({states.SUCCESS, states.FAILURE})


class LingeringBackend(RedisBackend):
    """Stores what came of a body only once it may; or lets the worker go on with it only then."""

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        told = str(result) if state in STORED else ""
        moment = next((each for each in ("before", "after") if each in told), "")
        if moment == "before":
            linger(task_id, moment)
        stored = super()._store_result(task_id, result, state, *args, **kwargs)
        if moment == "after":
            linger(task_id, moment)
        return stored


app.conf.result_backend = f"{__name__}:{LingeringBackend.__name__}+{redis_url}"


def linger(run: str, moment: str) -> None:
    go = Path(os.environ[LEDGER]).with_name(f"go-{moment}")
    go.with_name(f"at-{run}").touch()
    while not go.exists():
        time.sleep(TICK)


@app.task(bind=True, public_result=True)
def returns(self: Any, moment: str) -> str:
    with noted(self.request.id):
        return moment


@app.task(bind=True, public_result=True)
def raises(self: Any, moment: str) -> str:
    with noted(self.request.id):
        raise ValueError(moment)


@app.task(bind=True, public_result=True)
def tidies(self: Any, moment: str) -> str:
    """Executes until it is stopped, and takes its time over that."""
    with noted(self.request.id):
        try:
            linger(self.request.id, "never")
        finally:
            Path(os.environ[LEDGER]).with_name(f"stops-{self.request.id}").touch()
            linger(self.request.id, moment)
    return moment


@app.task(bind=True, public_result=True)
def goes_on(self: Any, moment: str) -> str:
    """Does not mind being told to stop."""
    with noted(self.request.id):
        try:
            linger(self.request.id, "never")
        except SystemExit:
            Path(os.environ[LEDGER]).with_name(f"stops-{self.request.id}").touch()
            linger(self.request.id, moment)
    return moment


@app.task(bind=True, public_result=True, max_retries=3)
def asks_again(self: Any, name: str) -> int:
    """Asks for another attempt once it may."""
    with noted(self.request.id):
        if self.request.retries == 0:
            linger(self.request.id, name)
            Path(os.environ[LEDGER]).with_name(f"asks-{self.request.id}").touch()
            raise self.retry(countdown=0)
    return int(self.request.retries)
