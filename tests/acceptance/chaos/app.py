"""The Celery app under test: set up as this deployment's own, a task for each kind of run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from celery import Celery, chord, group

from bridge import Bridge, BridgeSettings, Limit, PublicError
from tests.acceptance.chaos.journal import noted
from tests.processes import SETTINGS

settings = BridgeSettings.model_validate_json(os.environ[SETTINGS])
app = Celery("chaos", broker=settings.outbox.redis_url, backend=settings.outbox.redis_url)
app.conf.update(
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    result_backend_always_retry=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 6 * 3600},
)
Bridge(app, settings)

CHANNEL = "chaos-{user_id}"
AGAIN = 10_000  # a worker's death counts an attempt, and here they die often
BEAT = 0.05
ONE_EACH = [Limit(6, name="busy"), Limit(1, key="user_id")]


def work(
    task: Any, beats: int, note: Callable[[int], None], first: int = 0, until: int | None = None
) -> None:
    """Beats of a heart, from the one after `first` on, each of which is told."""
    for beat in range(first, beats if until is None else until):
        time.sleep(BEAT)
        task.progress(beat + 1, beats, f"beat {beat + 1}")
        note(beat + 1)


@app.task(bind=True, channel=CHANNEL, public_result=True, max_retries=AGAIN)
def plain(self: Any, user_id: str, beats: int) -> int:
    with noted(self) as note:
        work(self, beats, note)
        return beats


@app.task(bind=True, channel=CHANNEL, max_retries=AGAIN)
def refused(self: Any, user_id: str, beats: int) -> None:
    with noted(self) as note:
        work(self, beats, note)
        raise PublicError("This account has no public posts.", code="empty_account")


@app.task(bind=True, channel=CHANNEL, max_retries=AGAIN)
def broken(self: Any, user_id: str, beats: int) -> None:
    with noted(self) as note:
        work(self, beats, note)
        raise ValueError(user_id)


@app.task(bind=True, channel=CHANNEL, public_result=True, max_retries=AGAIN)
def stubborn(self: Any, user_id: str, beats: int) -> int:
    """Asks twice to be tried again."""
    with noted(self) as note:
        work(self, beats, note)
        if self.request.retries < 2:
            raise self.retry(countdown=0.2)
        return beats


@app.task(bind=True, channel=CHANNEL, public_result=True, max_retries=AGAIN, concurrency=ONE_EACH)
def limited(self: Any, user_id: str, beats: int) -> int:
    with noted(self) as note:
        work(self, beats, note)
        return beats


@app.task(bind=True, channel=CHANNEL, public_result=True, max_retries=AGAIN)
def long(self: Any, user_id: str, beats: int) -> int:
    """Goes on from its checkpoint, which it makes at every fifth beat."""
    with noted(self) as note:
        for done in range(self.last_checkpoint or 0, beats, 5):
            work(self, beats, note, done, min(beats, done + 5))
            self.checkpoint(done + 5)
        return beats


@app.task(bind=True, channel=CHANNEL, public_result=True, max_retries=AGAIN)
def parallel(self: Any, user_id: str, beats: int) -> Any:
    """Goes on as a chord under its own id."""
    with noted(self):
        header = group(part.si(beats) for _ in range(3))
        return self.replace(chord(header, gather.s()))


@app.task(bind=True, public_result=True, max_retries=AGAIN)
def part(self: Any, beats: int) -> int:
    with noted(self) as note:
        work(self, beats, note)
        return beats


@app.task(bind=True, public_result=True, max_retries=AGAIN)
def gather(self: Any, numbers: list[int]) -> int:
    with noted(self):
        return sum(numbers)


@app.task(bind=True, channel=CHANNEL, max_retries=AGAIN)
def never(self: Any, user_id: str, beats: int) -> None:
    """Expires before its time has come."""
    with noted(self):
        pass


@app.task(bind=True, channel=CHANNEL, max_retries=AGAIN, concurrency=1)
def held(self: Any, user_id: str, beats: int) -> None:
    """Waits, as it is paused for good, until it is revoked."""
    with noted(self):
        pass
