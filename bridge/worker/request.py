"""The worker's view of one message: asks for admission before the pool, and tells what Celery does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import states
from celery.exceptions import TaskRevokedError
from celery.platforms import signals as signal_numbers
from celery.utils.saferepr import saferepr
from celery.worker.request import TERM_SIGNAME, Request
from celery.worker.state import task_ready
from celery.worker.strategy import hybrid_to_proto2

from bridge.limits.broker import own_queue
from bridge.redis_transport import go_first
from bridge.worker.stored import stored_end

if TYPE_CHECKING:
    from bridge.extension import Bridge
    from bridge.limits.admission import Admission

_KILLED_WITHIN: Final = 10.0
_STOPPED: Final = (Terminated, SystemExit, KeyboardInterrupt)
_GONE: Final = (WorkerLostError, SystemExit, KeyboardInterrupt)

_reported: ContextVar[Any] = ContextVar("taskcast_reported_request", default=None)
_goes_on: ContextVar[bool] = ContextVar("taskcast_goes_on", default=False)
_ended_because: ContextVar[str | None] = ContextVar("taskcast_ended_because", default=None)


def reported_request() -> Any:
    """The request (a task context) that the worker's main process is just reporting on, or None."""
    return _reported.get()


def goes_on_after_report() -> bool:
    """Whether what the main process reports as a failure will be delivered again."""
    return _goes_on.get()


def ended_because() -> str | None:
    """Why the main process ends a run that has not started, where Celery's signal does not tell."""
    return _ended_because.get()


class BridgeRequest(Request):  # named by BridgeTask.Request, Celery's extension point
    """Holds the slots that its run needs, and tells the bridge which attempt a report is about."""

    holder: str | None = None
    acknowledged: bool
    _eta: datetime | None
    _expires: datetime | None
    _child_died = False
    _has_succeeded = False
    _told_to_stop: int | None = None  # by which signal

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Celery makes a subclass for each task, whose two fastest methods never call these here."""
        super().__init_subclass__(**kwargs)
        for name, wrap in (("execute_using_pool", _admitted), ("on_success", _leaving)):
            if name in vars(cls):
                setattr(cls, name, wrap(vars(cls)[name]))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        queue = self._delivery_info.get("routing_key")
        if isinstance(queue, str) and self.message.delivery_info.get("exchange") == "":
            self._delivery_info["routing_key"] = own_queue(queue)  # where Celery publishes a retry
        if (self._eta or self._expires) and self._bridge is not None:
            self._tell_by_own_clock(timedelta(seconds=self._bridge.clock.ahead()))

    @property
    def message(self) -> Any:
        return self._message

    def _tell_by_own_clock(self, ahead: timedelta) -> None:
        """Celery judges by this machine's clock what is told by the deployment's."""
        self._eta = self._eta and self._eta + ahead
        self._expires = self._expires and self._expires + ahead

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        in_time = not isinstance(error, TimeLimitExceeded)
        self._child_died = isinstance(error, WorkerLostError)
        try:
            if self._told_to_stop is not None and isinstance(error, _GONE):
                return self.end_stopped()
            with self._reporting():
                return super().on_failure(exc_info, *args, **kwargs)
        finally:
            if self._already_cancelled and isinstance(error, _STOPPED) and self._admission is not None:
                # Not here: this may be a signal's handler, which has interrupted whoever holds a lock.
                self._admission.later(self._tell_cancelled)
            self._leave(at_once=in_time)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        task = self.task
        try:
            with self._reporting(goes_on=not soft and task.acks_late and not task.acks_on_timeout):
                return super().on_timeout(soft, timeout)
        finally:
            if not soft:
                self._leave(at_once=False)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Stop what executes the run, and tell of it when it has stopped.

        Celery tells at once that a run is revoked whose process may be past its body, and stores its result.
        """
        if not self.time_start or not _executes_in_child(self):
            super().terminate(pool, signal)
            return
        self._told_to_stop = signal_numbers.signum(signal or TERM_SIGNAME)
        pool.terminate_job(self.worker_pid, self._told_to_stop)
        self._apply_result().terminate(self._told_to_stop)
        if self._admission is not None and self.holder is not None:
            self._admission.leases.leave_when_gone(self, self.worker_pid)  # it may do nothing to it

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Celery's way at a cold shutdown to have a run executed again; not one that was to stop anyway."""
        if self._told_to_stop is None:
            super().cancel(pool, signal, emit_retry=emit_retry)
        else:
            pool.terminate_job(self.worker_pid, signal_numbers.signum(TERM_SIGNAME))

    def end_stopped(self) -> None:
        """End a run that was told to stop, once nothing executes it any more."""
        if self._told_to_stop is not None and not self._already_revoked:
            self._announce_revoked("terminated", True, self._told_to_stop, False)

    def acknowledge(self) -> None:
        """Ack the message, and at the end of a run free its slots with the same command."""
        admission = self._admission
        if admission is not None and not self.acknowledged:
            leases, at_end = admission.leases, self._has_succeeded
            self.acknowledged = (at_end and leases.leave_and_ack(self)) or leases.ack(self.message)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> Any:
        if requeue and self._bridge is not None:
            if self._admission is not None:
                self._admission.leases.give_back(self, died=self._child_died)
            self._bridge.signals.requeued(self.task, self._context)
        if requeue and self._child_died:
            go_first(self.message)  # it had its turn
        return super().reject(requeue=requeue)

    def end_unstarted(self, why: str) -> None:
        """End the run without starting it: revoked, expired, dropped or superseded."""
        token = _ended_because.set(why)
        try:
            self._announce_revoked(why, False, None, why == "expired")
        finally:
            _ended_because.reset(token)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if terminated and (end := stored_end(self)) is not None:
            self._end_as_stored(end)
            return
        super()._announce_revoked(reason, terminated, self._told_to_stop or signum, expired)
        if self._admission is not None:
            self._admission.forget(self)

    def _end_as_stored(self, end: Mapping[str, Any]) -> None:
        """The run was stopped past its end, which its process may not have told of any more."""
        task_ready(self, successful=end["status"] == states.SUCCESS)
        self._already_revoked = True
        if self._bridge is not None:
            self._bridge.signals.stored(self.task, self._context, end)
        self.acknowledge()
        if end["status"] == states.SUCCESS:
            self.send_event(
                "task-succeeded",
                result=saferepr(end.get("result"), self.task.resultrepr_maxsize),
                runtime=None,
            )
        else:
            self.send_event("task-failed", exception=saferepr(end.get("result")))

    def _success_was_stored(self) -> Any:
        """Asked by Celery for a run whose process was lost; then it tells but who listens to events."""
        end = super()._success_was_stored()
        if end and self._bridge is not None:
            self._bridge.signals.stored(self.task, self._context, end)
        return end

    def _tell_cancelled(self) -> None:
        """A cold shutdown, or the loss of the broker's connection, has ended what executed this run."""
        bridge = self._bridge
        if bridge is not None and self.acknowledged:  # nobody will try it again
            bridge.signals.lost(self.task, self._context, store_result=self.store_errors)
        elif bridge is not None:
            bridge.signals.requeued(self.task, self._context)

    @property
    def _bridge(self) -> Bridge | None:
        return getattr(self.app, "bridge", None)

    @property
    def _admission(self) -> Admission | None:
        return self._bridge.admission if self._bridge is not None else None

    def _leave(self, at_once: bool = True) -> None:
        """Free the slots; after a hard time limit once the child is dead, which Celery kills afterwards."""
        if self.holder is None or self._admission is None:
            return
        if at_once or not _executes_in_child(self):
            self._admission.leases.leave(self)
        else:
            self._admission.leases.leave_when_gone(self, self.worker_pid, _KILLED_WITHIN)

    @contextmanager
    def _reporting(self, goes_on: bool = False) -> Iterator[None]:
        request, before = _reported.set(self._context), _goes_on.set(goes_on)
        try:
            yield
        finally:
            _reported.reset(request)
            _goes_on.reset(before)


def unstarted(app: Any, message: Any, consumer: Any) -> BridgeRequest:
    """The request of a run that waited and will not start; its message is acked at the broker already."""
    own = {"app": app, "hostname": consumer.hostname, "eventer": consumer.event_dispatcher}
    if "args" not in message.payload:
        return BridgeRequest(message, **own)
    body, headers, decoded, utc = hybrid_to_proto2(message, message.payload)  # protocol 1, as Celery reads it
    return BridgeRequest(message, body=body, headers=headers, decoded=decoded, utc=utc, **own)


def _admitted(execute_using_pool: Callable[..., Any]) -> Callable[..., Any]:
    """`execute_using_pool` behind the admission."""

    @wraps(execute_using_pool)
    def admitted(self: BridgeRequest, pool: Any, **kwargs: Any) -> Any:
        admission = self._admission
        if admission is None:
            return execute_using_pool(self, pool, **kwargs)
        if self.revoked():
            raise TaskRevokedError(self.id)
        admission.enter(self)
        try:
            result = execute_using_pool(self, pool, **kwargs)
        except BaseException:
            self._leave()
            raise
        _leave_at_end_of(result, self)
        return result

    return admitted


def _leaving(on_success: Callable[..., Any]) -> Callable[..., Any]:
    """`on_success` that frees the slots; what it hands to `on_failure` is seen to there."""

    @wraps(on_success)
    def leaving(self: BridgeRequest, outcome: Any, **kwargs: Any) -> Any:
        self._has_succeeded = not outcome[0]
        try:
            return on_success(self, outcome, **kwargs)
        finally:
            self._leave()

    return leaving


def _leave_at_end_of(result: Any, request: BridgeRequest) -> None:
    """Free the slots at the end of a thread or greenlet, whatever way it took."""
    if request.holder is None:
        return
    future = getattr(result, "f", None)
    if future is not None:
        future.add_done_callback(lambda _: request._leave())
    elif hasattr(result, "link"):
        result.link(lambda _: request._leave())


def _executes_in_child(request: BridgeRequest) -> bool:
    result = request._apply_result() if request._apply_result is not None else None
    return hasattr(result, "worker_pids")
