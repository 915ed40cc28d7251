"""A Celery app whose bodies count to a hundred, and are interrupted on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from celery.exceptions import Reject

from bridge import LeaseLost, current_run
from tests.acceptance.celery_app import celery_app
from tests.acceptance.checkpoints.places import EVERY, HELD, ITEMS, SHOWN
from tests.acceptance.limits.ledger import LEDGER, noted

app = celery_app("checkpoints", task_reject_on_worker_lost=True)


def folder() -> Path:
    return Path(os.environ[LEDGER]).parent


def began(run_id: str, start: Any) -> int:
    """Notes an execution; gives which one it is, from 1."""
    file = folder() / f"starts-{run_id}"
    with file.open("a") as notes:
        notes.write(f"{start}\n")
    return len(file.read_text().splitlines())


@app.task(bind=True, max_retries=9)
def counting(self: Any, name: str, keeps: bool = True) -> None:
    """Counts; where it is interrupted, the next execution goes on from the last checkpoint."""
    start = self.last_checkpoint or 0
    execution = began(self.request.id, start)
    with noted(self.request.id) as alive:

        def held(at: str) -> None:
            while not (folder() / f"go-{name}-{at}").exists():
                signal.sigtimedwait([], 0.02)
                alive()

        for number in range(start, ITEMS):
            if execution == 1 and number == SHOWN:
                held("on")
                interrupted(self, name)
            if execution == 2 and number == start + 1:
                held("seen")  # the first that it has told is shown, whatever comes soon after
            if execution == 2 and number == HELD:
                held("end")
            signal.sigtimedwait([], 0.02)
            alive()
            self.progress(number + 1, ITEMS, f"execution {execution}")
            if keeps and (number + 1) % EVERY == 0:
                self.checkpoint(number + 1)


def interrupted(task: Any, name: str) -> None:
    """What comes of an execution that was not killed."""
    if name == "raises":
        raise task.retry(countdown=0)
    if name == "rejects":
        raise Reject("later", requeue=True)
    try:
        task.checkpoint("of one that was taken for dead")
    except LeaseLost:
        (folder() / f"lost-{name}").touch()
        raise


@app.task(bind=True, max_retries=9)
def dies(self: Any, times: int) -> None:
    """Is killed as soon as its checkpoint is kept."""
    start = self.last_checkpoint or 0
    began(self.request.id, start)
    if start < times:
        self.log(f"part {start}")
        self.checkpoint(start + 1)
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def replaced(self: Any) -> None:
    """Goes on as another task, which has a checkpoint of its own."""
    self.checkpoint("of the replaced one")
    raise self.replace(last_of_it.si())


@app.task(bind=True, public_result=True)
def last_of_it(self: Any) -> Any:
    run = current_run()
    assert run is not None
    return self.last_checkpoint
