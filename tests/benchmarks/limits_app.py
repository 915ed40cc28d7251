"""Tasks with a limit, and what people write in its place, for the `bench_limit_*.py` beside this file.

On an app with the bridge, or on plain Celery where BENCH_PLAIN is set.
"""

from __future__ import annotations

import os
import time
from typing import Any

import redis
from celery import Celery

from bridge import Bridge, BridgeSettings
from bridge.settings import OutboxSettings

SLOTS = 5
BODY = 0.05
POLL = 1  # seconds between two looks of the polling recipe

url, queue = os.environ["BENCH_REDIS"], os.environ["BENCH_QUEUE"]
is_plain = bool(os.environ.get("BENCH_PLAIN"))
app = Celery("limits", broker=url)
app.conf.update(
    task_default_queue=queue, task_ignore_result=True, task_acks_late=True, worker_hijack_root_logger=False
)
if not is_plain:
    Bridge(app, BridgeSettings(outbox=OutboxSettings(redis_url=url, prefix=queue)))
limit: dict[str, Any] = {} if is_plain else {"concurrency": SLOTS}
never_reached: dict[str, Any] = {} if is_plain else {"concurrency": 100_000}
_client = redis.Redis.from_url(url)


def log(word: str) -> None:
    """Append the word and the time to the log, in one write that no other process splits."""
    with open(os.environ["BENCH_LOG"], "ab", buffering=0) as file:
        file.write(f"{word} {time.monotonic_ns()}\n".encode())


def body() -> None:
    log("start")
    time.sleep(BODY)
    log("end")


@app.task(**limit)
def limited() -> None:
    """At most five at once, by the bridge."""
    body()


@app.task
def unlimited() -> None:
    """At most as many at once as its worker has slots."""
    body()


@app.task(bind=True, max_retries=None)
def polling(self: Any) -> None:
    """At most five at once, by a counter in Redis and `self.retry`."""
    if _client.incr(f"{queue}-count") > SLOTS:
        _client.decr(f"{queue}-count")
        log("vain")
        raise self.retry(countdown=POLL)
    try:
        body()
    finally:
        _client.decr(f"{queue}-count")


@app.task
def noop() -> None:
    """Nothing."""


@app.task(**never_reached)
def noop_limited() -> None:
    """Nothing, below a limit that is never reached."""
