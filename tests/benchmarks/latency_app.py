"""Runs that report the time of each progress call, for `bench_latency.py`."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from celery import Celery

from bridge import Bridge, BridgeSettings
from tests.processes import SETTINGS

settings = BridgeSettings.model_validate_json(os.environ[SETTINGS])
app = Celery("latency", broker=settings.outbox.redis_url)
app.conf.update(task_ignore_result=True, task_default_queue="latency", worker_prefetch_multiplier=1)
Bridge(app, settings)


@app.task(bind=True, channel="bench-{user_id}")
def report(self: Any, user_id: str, every: float, until: float) -> None:
    """Report the time every `every` seconds until a time since the epoch, beginning anywhere in a period."""
    time.sleep(random.random() * every)
    number = 0
    while (now := time.time()) < until:
        self.progress(number, 1_000, f"{now:.6f}")
        number += 1
        time.sleep(every)
