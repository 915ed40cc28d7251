"""Tasks that wait for a door, and write down when they start and end."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Celery

from bridge import Bridge, BridgeSettings, Limit, Rate
from tests.processes import SETTINGS

FOLDER = "TASKCAST_TEST_FOLDER"
"""Where the doors are, and what was written down."""

settings = BridgeSettings.model_validate_json(os.environ[SETTINGS])
redis_url, prefix = settings.outbox.redis_url, settings.outbox.prefix
app = Celery("shop", broker=redis_url, backend=redis_url)
app.conf.update(
    task_default_queue=f"{prefix}-default",
    broker_transport_options={"global_keyprefix": f"{prefix}-"},
    result_backend_transport_options={"global_keyprefix": f"{prefix}-"},
    worker_hijack_root_logger=False,
    task_ignore_result=True,
)
Bridge(app, settings)


def note(name: str, what: str) -> None:
    with (Path(os.environ[FOLDER]) / "notes").open("a") as notes:
        notes.write(f"{name} {what}\n")


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
