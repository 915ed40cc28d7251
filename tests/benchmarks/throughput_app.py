"""A no-op task on an app with the bridge, or without it where BENCH_PLAIN is set."""

from __future__ import annotations

import logging
import os

from celery import Celery

from bridge import Bridge, BridgeSettings
from bridge.settings import OutboxSettings

url, queue = os.environ["BENCH_REDIS"], os.environ["BENCH_QUEUE"]
app = Celery("throughput", broker=url, backend=url)
app.conf.update(task_default_queue=queue, worker_hijack_root_logger=False)
for name in ("celery.app.trace", "celery.worker.strategy"):  # else two lines a task where "ready" is told
    logging.getLogger(name).setLevel(logging.WARNING)
if not os.environ.get("BENCH_PLAIN"):
    Bridge(app, BridgeSettings(outbox=OutboxSettings(redis_url=url, prefix=queue)))


@app.task
def noop(user_id: str) -> None:
    """Nothing, for a user."""
