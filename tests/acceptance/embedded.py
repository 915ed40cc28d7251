"""What a user's own test does: a worker in the process of the test, as Celery's fixtures start it.

`python -m tests.acceptance.embedded POOL limits` (or `anew`) prints what came of some runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery, chain, uuid
from celery.contrib.testing.worker import start_worker
from redis import Redis

from bridge import Bridge, BridgeSettings
from tests.processes import SETTINGS
from tests.waiting import PATIENCE, wait_until

settings = BridgeSettings.model_validate_json(os.environ[SETTINGS])
url = settings.outbox.redis_url
app = Celery("embedded", broker=url, backend=url)
bridge = Bridge(app, settings)


@app.task
def free(number: int) -> int:
    return number


@app.task(concurrency=1)
def alone(number: int) -> tuple[int, float, float]:
    began = time.monotonic()
    time.sleep(0.05)
    return number, began, time.monotonic()


@app.task
def count(key: str) -> int:
    with Redis.from_url(url) as client:
        return int(client.incr(key))


def limits(pool: str) -> list[list[Any]]:
    """Runs that a limit holds back, and others."""
    with start_worker(app, pool=pool, concurrency=3, perform_ping_check=False, shutdown_timeout=30):
        unlimited = [free.delay(number) for number in range(3)]
        limited = [alone.delay(number) for number in range(3)]
        results = [[run.get(timeout=PATIENCE) for run in runs] for runs in (unlimited, limited)]
        with Redis.from_url(url) as client:
            wait_until(lambda: not client.keys("*:limits:held:*"), "no lease is left")
    return results


def executions(run: str) -> list[Any]:
    """Those of a run in this worker."""
    admission = bridge.admission
    return admission.leases.requests_of(run) if admission is not None else []


def anew(pool: str) -> int:
    """The same signatures, with the same ids, each time that the runs before have ended here."""
    key = uuid()
    canvas = chain(free.s(1), count.si(key))
    last = canvas.freeze()
    runs = [last.parent.id, last.id]
    with (
        start_worker(app, pool=pool, concurrency=1, perform_ping_check=False, shutdown_timeout=30),
        Redis.from_url(url) as client,
    ):
        for times in (1, 2, 3):
            canvas.apply_async()
            wait_until(
                lambda times=times: client.get(key) == b"%d" % times, f"the last one ran {times} times"
            )
            wait_until(lambda: not any(map(executions, runs)), "both have ended")
    return times


if __name__ == "__main__":
    print(json.dumps({"limits": limits, "anew": anew}[sys.argv[2]](sys.argv[1])))
