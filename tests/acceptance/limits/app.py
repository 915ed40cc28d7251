"""A Celery app whose tasks share limits and leave in every way; each body writes the ledger."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject

from bridge import Limit
from tests.acceptance.celery_app import celery_app, returning_soon
from tests.acceptance.limits.ledger import LEDGER, TICK, noted

app = celery_app("limits", returning_soon(3), task_reject_on_worker_lost=True)

ONE = Limit(1, name="one")
FIVE = Limit(5, name="five")


def go(name: str) -> Path:
    """The file that lets the bodies of this name end, or that one leaves."""
    return Path(os.environ[LEDGER]).with_name(f"go-{name}")


def until(ended: Callable[[], bool], alive: Callable[[], None]) -> None:
    while not ended():
        time.sleep(TICK)
        alive()


def is_first(task: Any) -> bool:
    """Whether this run executes for the first time."""
    try:
        go(f"seen-{task.request.id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@app.task(bind=True, concurrency=FIVE)
def short(self: Any, seconds: float = 0.06) -> None:
    with noted(self.request.id) as alive:
        deadline = time.monotonic() + seconds
        until(lambda: time.monotonic() > deadline, alive)


@app.task(bind=True, concurrency=FIVE)
def five(self: Any, name: str) -> None:
    with noted(self.request.id) as alive:
        until(go(name).exists, alive)


@app.task(bind=True, concurrency=ONE)
def hold(self: Any, name: str) -> None:
    with noted(self.request.id) as alive:
        until(go(name).exists, alive)


@app.task(bind=True, concurrency=ONE)
def hold_gil(self: Any, seconds: int) -> None:
    with noted(self.request.id):
        ctypes.PyDLL(None).usleep(seconds * 1_000_000)  # PyDLL calls do not let go of the GIL


@app.task(bind=True, concurrency=ONE)
def fine(self: Any) -> None:
    with noted(self.request.id):
        pass


@app.task(bind=True, concurrency=ONE)
def broken(self: Any) -> None:
    with noted(self.request.id):
        raise ValueError


@app.task(bind=True, concurrency=ONE)
def ignored(self: Any) -> None:
    with noted(self.request.id):
        raise Ignore


@app.task(bind=True, concurrency=ONE)
def rejected(self: Any) -> None:
    with noted(self.request.id):
        raise Reject("not mine", requeue=False)


@app.task(bind=True, concurrency=ONE)
def passed_on(self: Any) -> None:
    """Goes back to its queue once."""
    with noted(self.request.id):
        if is_first(self):
            raise Reject("later", requeue=True)


@app.task(bind=True, concurrency=ONE, acks_late=False)
def acked_early(self: Any) -> None:
    with noted(self.request.id):
        pass


@app.task(bind=True, concurrency=ONE, acks_late=False)
def lost_acked_early(self: Any) -> None:
    with noted(self.request.id):
        os._exit(7)


@app.task(bind=True, concurrency=ONE, reject_on_worker_lost=False)
def lost(self: Any) -> None:
    with noted(self.request.id):
        os._exit(7)


@app.task(bind=True, concurrency=ONE)
def lost_once(self: Any) -> None:
    """Takes its process with it, and runs when its message comes again."""
    with noted(self.request.id):
        if is_first(self):
            os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, concurrency=ONE, reject_on_worker_lost=False)
def exits(self: Any) -> None:
    with noted(self.request.id):
        raise SystemExit(3)


@app.task(bind=True, concurrency=ONE, soft_time_limit=2)
def too_slow(self: Any) -> None:
    with noted(self.request.id) as alive:
        until(lambda: False, alive)


@app.task(bind=True, concurrency=ONE, time_limit=2)
def deaf(self: Any) -> None:
    """Goes on past its time limit for as long as it can; leaves word that it was asked to end."""
    asked = go(f"asked-{self.request.id}")
    signal.signal(signal.SIGTERM, lambda *_: asked.touch())
    with noted(self.request.id) as alive:
        until(lambda: False, alive)


@app.task(bind=True, concurrency=ONE, time_limit=2, acks_on_timeout=False)
def slow_once(self: Any) -> None:
    """Is killed at its time limit, and runs when its message comes again."""
    with noted(self.request.id) as alive:
        if is_first(self):
            until(lambda: False, alive)


@app.task(bind=True, concurrency=ONE, max_retries=2)
def again(self: Any, countdown: float) -> None:
    with noted(self.request.id):
        if self.request.retries == 0:
            raise self.retry(countdown=countdown)
