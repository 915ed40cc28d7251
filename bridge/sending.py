"""What is known of a message while it is sent: whose it is, and which of its times count from now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from celery import Celery, uuid
from celery.exceptions import OperationalError

from bridge.clock import counted_from_now
from bridge.run import Run


@dataclass(slots=True)
class NextAttempt:
    """Another attempt, as the run that asks for it sends its message."""

    run: Run | None  # None for a task without a mirror
    reason: BaseException
    waits: bool  # until the broker is back, so what fails before is not told


_app: ContextVar[Celery | None] = ContextVar("taskcast_sender", default=None)
_from_now: ContextVar[frozenset[str]] = ContextVar("taskcast_from_now", default=frozenset())
_next_attempt: ContextVar[NextAttempt | None] = ContextVar("taskcast_next_attempt", default=None)


def sender_of() -> Celery | None:
    """The app that sends here; Celery's signal names the task only, which several apps may have."""
    return _app.get()


def from_now() -> frozenset[str]:
    """Which times of the message are given as seconds from now."""
    return _from_now.get()


def next_attempt() -> NextAttempt | None:
    """What is known of the attempt that is being sent."""
    return _next_attempt.get()


@contextmanager
def sending_next(attempt: NextAttempt) -> Iterator[None]:
    """Around a run's call for another attempt of itself."""
    token = _next_attempt.set(attempt)
    try:
        yield
    finally:
        _next_attempt.reset(token)


def sending(app: Celery) -> Callable[..., Any]:
    """`app.send_task`, through which each message goes: tells what is sent, and what could not be."""
    send = app.send_task

    def send_task(name: str, *args: Any, task_id: str | None = None, **options: Any) -> Any:
        task_id = task_id or uuid()
        token, before = _app.set(app), _from_now.set(counted_from_now(options))
        try:
            return send(name, *args, task_id=task_id, **options)
        except OperationalError:
            attempt = _next_attempt.get()
            if attempt is None or not attempt.waits:
                app.bridge.signals.publication_failed(task_id)
            raise
        finally:
            _app.reset(token)
            _from_now.reset(before)

    return send_task
