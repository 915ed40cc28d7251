"""A Celery app with limited tasks whose bodies write down when they start and end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge import Limit, Rate
from tests.acceptance.celery_app import celery_app
from tests.acceptance.limits_pools import folders as folders  # makes its transport known

HISTORY = "TASKCAST_TEST_HISTORY"  # file of starts and ends
TRANSPORT = "TASKCAST_TEST_TRANSPORT"  # transport options of the broker, as JSON

app = celery_app("limited", queue="common", is_current=False, worker_prefetch_multiplier=4)
settings = app.bridge.settings
app.conf.result_backend = settings.outbox.redis_url
if elsewhere := os.environ.get(TRANSPORT):
    app.conf.broker_transport_options = json.loads(elsewhere)

SECOND = timedelta(seconds=1)


@contextmanager
def noted(task: Any, label: str = "") -> Iterator[None]:
    """Write down when the body starts and when it ends, with the one clock that all processes share."""
    _note(task, "start", label)
    try:
        yield
    finally:
        _note(task, "end", label)


def _note(task: Any, what: str, label: str) -> None:
    # One write to the end of the file: no line is torn, whatever else is written.
    line = f"{time.monotonic_ns()} {what} {task.request.id} {task.name.rsplit('.')[-1]} {label}\n"
    file = os.open(os.environ[HISTORY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def _until(path: str | None, pause: float) -> None:
    """Until the file is there; without one, for so long."""
    time.sleep(pause)
    while path is not None and not Path(path).exists():
        time.sleep(0.01)


@app.task(bind=True, concurrency=3)
def three(self: Any, pause: float = 0.02, label: str = "", until: str | None = None) -> str:
    with noted(self, label):
        _until(until, pause)
    return label


@app.task(bind=True, concurrency=3)
def three_again(self: Any, times: int = 1) -> None:
    """Is retried so many times."""
    _note(self, "queue", self.request.delivery_info["routing_key"])
    with noted(self, str(self.request.retries)):
        time.sleep(0.02)
        if self.request.retries < times:
            raise self.retry(countdown=0.05, max_retries=times)


@app.task(bind=True, concurrency=3)
def three_replaced(self: Any, label: str = "") -> Any:
    """Goes on as a run of `three` under its own id."""
    with noted(self, label):
        time.sleep(0.02)
    return self.replace(three.si(0.02, label))


@app.task(bind=True)
def gather(self: Any, labels: list[str]) -> list[str]:
    return labels


@app.task(bind=True, concurrency=1)
def one(self: Any, pause: float = 0.0, until: str | None = None, label: str = "") -> None:
    with noted(self, label):
        _until(until, pause)


@app.task(bind=True, concurrency=1, channel="imports-{user_id}")
def owned(self: Any, user_id: str, until: str | None = None) -> None:
    with noted(self, user_id):
        _until(until, 0)


@app.task(bind=True)
def free(self: Any, pause: float = 0.0, until: str | None = None) -> None:
    with noted(self):
        _until(until, pause)


@app.task(bind=True, concurrency=[Limit(3), Limit(1, key="customer")])
def both(self: Any, customer: str, pause: float = 0.0, until: str | None = None) -> None:
    with noted(self, customer):
        _until(until, pause)


@app.task(bind=True, concurrency=Limit(2, name="shared"))
def sharing(self: Any, pause: float = 0.02, until: str | None = None) -> None:
    with noted(self):
        _until(until, pause)


@app.task(bind=True, concurrency=Limit(2, name="shared"))
def sharing_too(self: Any, pause: float = 0.02, until: str | None = None) -> None:
    with noted(self):
        _until(until, pause)


@app.task(bind=True, concurrency=Limit(1, key="customer"), on_limit="drop")
def dropping(self: Any, customer: str, until: str | None = None) -> None:
    with noted(self, customer):
        _until(until, 0)


@app.task(bind=True, concurrency=Limit(1, key="customer"), on_limit="cancel_running")
def newest(self: Any, customer: str, until: str | None = None) -> None:
    with noted(self, customer):
        _until(until, 0)


@app.task(bind=True, rate=Rate(5, per=SECOND))
def rated(self: Any) -> None:
    with noted(self):
        pass


@app.task(bind=True, rate=Rate(2, per=SECOND, key="customer"))
def rated_by_customer(self: Any, customer: str) -> None:
    with noted(self, customer):
        pass


@app.task(bind=True, rate=Rate(10, per=SECOND, units=lambda units: units))
def weighed(self: Any, units: Any) -> None:
    with noted(self, str(units)):
        pass


@app.task(bind=True, concurrency=Limit(9, name="provider"))
def turned_away(self: Any, retry_after: float) -> None:
    """Is told by a provider to come again later."""
    with noted(self):
        self.hold("provider", retry_after)


@app.task(bind=True, concurrency=Limit(9, name="provider"))
def asking_too(self: Any) -> None:
    with noted(self):
        pass


def raising(customer: str) -> str:
    raise RuntimeError("password=hunter2 is inside")


@app.task(bind=True, concurrency=Limit(1, key=raising))
def badly_keyed(self: Any, customer: str) -> None:
    with noted(self):
        pass


@app.task(bind=True, concurrency=[Limit(1, name="first"), Limit(1, key="customer")])
def keyed_second(self: Any, customer: str, units: int = 1) -> None:
    """One limit that can be told, and one whose key may be missing."""
    with noted(self):
        pass
