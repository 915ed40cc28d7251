"""A Celery app for workers that are restarted; each body writes the ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.signals import worker_init

from bridge import Limit, current_run
from tests.acceptance.celery_app import celery_app
from tests.acceptance.limits.ledger import LEDGER, TICK, noted

app = celery_app(
    "restarts",
    worker_prefetch_multiplier=2,
    worker_soft_shutdown_timeout=float(os.environ.get("TASKCAST_TEST_SOFT", "0")),
    result_backend_always_retry=True,  # else a run that ends while Redis is away has failed
)
redis_url = str(app.conf.broker_url)


@worker_init.connect
def read_slowly(**_: Any) -> None:
    """The worker's main process takes its time over a result that it has taken out of a pipe."""
    if not os.environ.get("TASKCAST_TEST_READS_SLOWLY"):
        return
    go = Path(os.environ[LEDGER]).with_name("go-reads")
    count = AsynPool.on_job_ready

    def counting(*args: Any) -> None:
        go.with_name("at-reads").touch()
        while not go.exists():
            time.sleep(TICK)
        count(*args)

    AsynPool.on_job_ready = counting


def number() -> int:
    run = current_run()
    assert run is not None
    return run.attempt


def live(task: Any, name: str, seconds: float) -> int:
    """Goes on for so long, or until it may end; reports and logs; returns the number of the attempt."""
    go = Path(os.environ[LEDGER]).with_name(f"go-{name}")
    until = time.monotonic() + seconds
    with noted(task.request.id) as alive:
        task.log(f"begun {number()}")
        while time.monotonic() < until and not go.exists():
            time.sleep(TICK)
            alive()
            task.progress(message=f"attempt {number()}")
        task.log(f"ends {number()}")
    return number()


@app.task(bind=True, public_result=True)
def plain(self: Any, name: str, seconds: float = 600) -> int:
    return live(self, name, seconds)


@app.task(bind=True, public_result=True, concurrency=Limit(1, name="one"))
def limited(self: Any, name: str, seconds: float = 600) -> int:
    return live(self, name, seconds)


@app.task(bind=True, public_result=True, acks_late=False)
def early(self: Any, name: str, seconds: float = 600) -> int:
    return live(self, name, seconds)


@app.task(bind=True, public_result=True, max_retries=5)
def again(self: Any, name: str, seconds: float = 600, countdown: float = 0.3) -> int:
    """Is tried again before it gets anywhere."""
    if self.request.retries == 0:
        raise self.retry(countdown=countdown)
    return live(self, name, seconds)


@app.task(bind=True, public_result=True, max_retries=5)
def again_elsewhere(self: Any, queue: str) -> int:
    """Its next attempt is for another queue, in a second."""
    if self.request.retries == 0:
        raise self.retry(countdown=1, queue=queue)
    return live(self, "now", 600)


class Lingering(app.Task):  # type: ignore[misc, name-defined]
    """Takes its time at the moment that its runs' only argument names, until it may go on."""

    abstract = True

    def after_return(self, *_: Any) -> None:
        self._linger("after_return")

    def on_retry(self, *_: Any) -> None:
        self._linger("on_retry")

    def apply_async(self, *args: Any, **options: Any) -> Any:
        published = super().apply_async(*args, **options)
        self._linger("apply_async")
        return published

    def _linger(self, moment: str) -> None:
        if moment in (self.request.args or ()):
            go = Path(os.environ[LEDGER]).with_name(f"go-{moment}")
            go.with_name(f"at-{self.request.id}").touch()
            while not go.exists():
                time.sleep(TICK)


@app.task(bind=True, base=Lingering, public_result=True)
def lingers(self: Any, moment: str) -> int:
    with noted(self.request.id):
        return number()


@app.task(bind=True, base=Lingering, public_result=True, acks_late=False)
def lingers_early(self: Any, moment: str) -> int:
    with noted(self.request.id):
        return number()


@app.task(bind=True, base=Lingering, public_result=True, max_retries=5)
def lingers_again(self: Any, moment: str) -> int:
    with noted(self.request.id):
        if self.request.retries == 0:
            raise self.retry(countdown=0.1)
        return number()


@app.task(bind=True, public_result=True)
def gather(self: Any, results: list[int]) -> list[int]:
    with noted(self.request.id):
        return results
