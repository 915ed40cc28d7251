"""A Celery app as a user would write it, with a task for every way out of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import chain, chord, group
from celery.exceptions import Ignore, Reject

from bridge import PublicError, current_run
from tests.acceptance.celery_app import celery_app

app = celery_app("acceptance", worker_prefetch_multiplier=4)

CHANNEL = "import-socials-{user_id}"


@app.task(bind=True, channel=CHANNEL, public_result=True)
def fine(self: Any, user_id: str, items: int = 5, pause: float = 0.0, door: str = "") -> dict[str, int]:
    for item in self.track(range(items), "Importing"):
        if pause:
            time.sleep(pause)
        if item == items // 2:
            if door:
                wait_for(Path(door))
            help_along(item)
    self.step("Done")
    return {"items": items}


def help_along(item: int) -> None:
    """A helper that reaches its run without being handed the task."""
    run = current_run()
    assert run is not None
    run.log(f"half way, at {item}", part=item)


@app.task(bind=True, channel=CHANNEL, concurrency=5)
def import_verbatim(self: Any, user_id: str, seen: str) -> None:
    """The workflow of the seed article, step by step; each takes until a file tells that it was seen."""
    for name in ("mastodon", "bluesky"):
        self.progress(message=f"Importing {name}...")
        wait_for(Path(seen, f"Importing {name}..."))
        self.progress(message=f"Extracting topics for {name}...")
        wait_for(Path(seen, f"Extracting topics for {name}..."))


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.02)


@app.task(bind=True, channel=CHANNEL)
def process_file(self: Any, user_id: str, input_file: str) -> None:
    """A job of the live-status article: progress in its row, then a link to the result."""
    for percent in (10, 40, 70):
        self.progress(percent, 100)
        time.sleep(0.35)
    self.result_url("https://files.example/result.mp4")


@app.task(bind=True, channel=CHANNEL)
def broken(self: Any, user_id: str) -> None:
    self.progress(1, 4, "Importing")
    raise ValueError("password=hunter2 is inside")


@app.task(bind=True, channel=CHANNEL)
def refused(self: Any, user_id: str) -> None:
    raise PublicError("This account has no public posts.", code="empty_account")


@app.task(bind=True, channel=CHANNEL, max_retries=3)
def stubborn(self: Any, user_id: str) -> None:
    attempts = self.last_checkpoint or 0
    self.checkpoint(attempts + 1)
    self.progress(attempts, 3, f"attempt {attempts + 1}")
    if attempts < 2:
        raise self.retry(countdown=0.05, exc=ConnectionError("provider away"))


@app.task(bind=True, channel=CHANNEL, max_retries=1)
def given_up(self: Any, user_id: str) -> None:
    raise self.retry(countdown=0.05, exc=ConnectionError("provider away"))


@app.task(bind=True, channel=CHANNEL, soft_time_limit=1)
def too_slow(self: Any, user_id: str) -> None:
    time.sleep(60)


@app.task(bind=True, channel=CHANNEL, time_limit=1)
def far_too_slow(self: Any, user_id: str) -> None:
    time.sleep(60)


@app.task(bind=True, channel=CHANNEL)
def ignored(self: Any, user_id: str) -> None:
    raise Ignore


@app.task(bind=True, channel=CHANNEL)
def rejected(self: Any, user_id: str) -> None:
    raise Reject("not mine", requeue=False)


@app.task(bind=True, channel=CHANNEL)
def passed_on(self: Any, user_id: str) -> None:
    """Rejects its message once and runs when it comes again."""
    if self.last_checkpoint is None:
        self.checkpoint("seen")
        raise Reject("later", requeue=True)


@app.task(bind=True, channel=CHANNEL)
def lost(self: Any, user_id: str) -> None:
    os._exit(7)


@app.task(bind=True, channel=CHANNEL, reject_on_worker_lost=True)
def lost_once(self: Any, user_id: str) -> None:
    """Takes its process with it, and runs when its message comes again."""
    if self.last_checkpoint is None:
        self.checkpoint("seen")
        self.progress(1, 2, "about to be lost")
        os._exit(7)


@app.task(bind=True, channel=CHANNEL, time_limit=4, acks_on_timeout=False)
def slow_once(self: Any, user_id: str) -> None:
    """Is killed at its time limit, and runs when its message comes again."""
    if self.last_checkpoint is None:
        self.checkpoint("seen")
        time.sleep(60)


@app.task(bind=True, channel=CHANNEL)
def endless(self: Any, user_id: str) -> None:
    self.progress(1, 2, "waiting")
    while True:
        time.sleep(0.05)


@app.task(bind=True)
def part(self: Any, number: int, fails: bool = False) -> int:
    self.progress(1, 2, f"part {number}")
    if fails:
        raise ValueError(number)
    return number


@app.task(bind=True)
def add(self: Any, numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True, channel=CHANNEL, public_result=True)
def in_parallel(self: Any, user_id: str, parts: int = 3, fails: bool = False) -> Any:
    """Goes on as a chord under its own id."""
    header = group(part.si(number, fails and number == 1) for number in range(parts))
    return self.replace(chord(header, add.s()))


@app.task(bind=True, channel=CHANNEL)
def one_by_one(self: Any, user_id: str, fails: bool = False) -> Any:
    """Goes on as a chain under its own id."""
    return self.replace(chain(part.si(0), part.si(1, fails), part.si(2)))


@app.task(mirror=False)
def unseen(user_id: str) -> None:
    """A task that wants no row."""
