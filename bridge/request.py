"""The worker's view of one message, extended where Celery turns away without a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery.worker.request import Request

_reported: ContextVar[Any] = ContextVar("taskcast_reported_request", default=None)
_goes_on: ContextVar[bool] = ContextVar("taskcast_goes_on", default=False)


def reported_request() -> Any:
    """The request (a task context) that the worker's main process is just reporting on, or None."""
    return _reported.get()


def goes_on_after_report() -> bool:
    """Whether what the main process reports as a failure will be delivered again."""
    return _goes_on.get()


class BridgeRequest(Request):  # named by BridgeTask.Request, Celery's extension point
    """Tells the bridge which attempt a report of the main process is about, and of silent requeues."""

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        with self._reporting():
            return super().on_failure(*args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        task = self.task
        with self._reporting(goes_on=not soft and task.acks_late and not task.acks_on_timeout):
            return super().on_timeout(soft, timeout)

    def reject(self, requeue: bool = False) -> Any:
        bridge = getattr(self.app, "bridge", None)
        if requeue and bridge is not None:
            bridge.signals.requeued(self.task, self._context)
        return super().reject(requeue=requeue)

    @contextmanager
    def _reporting(self, goes_on: bool = False) -> Iterator[None]:
        request, before = _reported.set(self._context), _goes_on.set(goes_on)
        try:
            yield
        finally:
            _reported.reset(request)
            _goes_on.reset(before)
