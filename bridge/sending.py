"""What is known of a message while it is sent: whose it is, and which of its times count from now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery, uuid
from celery.exceptions import OperationalError

from bridge.clock import counted_from_now

_app: ContextVar[Celery | None] = ContextVar("taskcast_sender", default=None)
_from_now: ContextVar[frozenset[str]] = ContextVar("taskcast_from_now", default=frozenset())
_tries_again: ContextVar[bool] = ContextVar("taskcast_tries_again", default=False)


def sender_of() -> Celery | None:
    """The app that sends here; Celery's signal names the task only, which several apps may have."""
    return _app.get()


def from_now() -> frozenset[str]:
    """Which times of the message are given as seconds from now."""
    return _from_now.get()


@contextmanager
def trying_again() -> Iterator[None]:
    """What cannot be sent here is sent again, so nothing is told of it."""
    token = _tries_again.set(True)
    try:
        yield
    finally:
        _tries_again.reset(token)


def sending(app: Celery) -> Callable[..., Any]:
    """`app.send_task`, through which each message goes: tells what is sent, and what could not be."""
    send = app.send_task

    def send_task(name: str, *args: Any, task_id: str | None = None, **options: Any) -> Any:
        task_id = task_id or uuid()
        token, before = _app.set(app), _from_now.set(counted_from_now(options))
        try:
            return send(name, *args, task_id=task_id, **options)
        except OperationalError:
            if not _tries_again.get():
                app.bridge.signals.publication_failed(task_id)
            raise
        finally:
            _app.reset(token)
            _from_now.reset(before)

    return send_task
