"""Tasks that wait for a door, and write down when they start and end, by the machine's clock."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge import Limit, Rate
from tests.acceptance.celery_app import celery_app

FOLDER = "TASKCAST_TEST_FOLDER"
"""Where the doors are, and what was written down."""

app = celery_app("shop", task_acks_late=False, worker_prefetch_multiplier=4, task_ignore_result=True)


def note(name: str, what: str) -> None:
    with (Path(os.environ[FOLDER]) / "notes").open("a") as notes:
        notes.write(f"{time.monotonic()} {name} {what}\n")


def behind(door: str, name: str) -> None:
    note(name, "started")
    while not (Path(os.environ[FOLDER]) / door).exists():
        time.sleep(0.01)
    note(name, "ended")


@app.task(name="shop.pair", mirror=False, concurrency=2)
def pair(name: str, door: str) -> None:
    behind(door, name)


@app.task(name="shop.each", mirror=False, concurrency=Limit(1, key="account"))
def each(name: str, door: str, account: str) -> None:
    behind(door, name)


@app.task(name="shop.free", mirror=False)
def free(name: str) -> None:
    note(name, "started")


@app.task(
    name="shop.ask", mirror=False, bind=True, rate=Rate(1000, per=timedelta(minutes=1), name="provider")
)
def ask(self: Any, name: str, retry_after: float = 0) -> None:
    note(name, "started")
    self.hold("provider", retry_after)
    note(name, "ended")
