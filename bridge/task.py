"""The task base class: declared options, and the progress API on `self`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import wraps
from inspect import getattr_static
from typing import Any, ClassVar, Final, TypeVar

from celery import Task
from celery.exceptions import OperationalError, Reject, Retry

from bridge.current import current_run, detached_run
from bridge.errors import PublicError
from bridge.limits.control import LimitsUnavailable
from bridge.limits.declared import Concurrency, Rate
from bridge.limits.targets import WHOLE
from bridge.options import OPTIONS, Declaration, declare, refuse_unknown
from bridge.replacement import counting_on
from bridge.run import Run
from bridge.sending import NextAttempt, sending_next
from bridge.worker.pool_process import ending, handing_over

log = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES_AGAIN_AFTER: Final = 1.0
"""Seconds; while the broker is away there is nothing else that a worker could execute."""

_SET_BY_CELERY = frozenset({"app", "name", "run"})


class _NotPublished(Exception):
    """The broker is away."""


class BridgeTask(Task):
    """What `@app.task(...)` makes on an app with a `Bridge`.

    >>> @app.task(bind=True, concurrency=5, channel="import-socials-{user_id}")
    ... def import_socials(self, user_id: str):
    ...     self.progress(3, 10, "Importing mastodon...")
    """

    abstract = True
    Request = "bridge.worker.request:BridgeRequest"

    concurrency: Concurrency | None = None
    rate: Rate | list[Rate] | None = None
    on_limit: str | None = None
    channel: str | None = None
    owner: str | None = None
    public_result = False
    mirror = True

    declaration: ClassVar[Declaration]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        name = str(own.get("name") or cls.__qualname__)
        if own.get("_decorated"):
            refuse_unknown(name, own.keys() - _SET_BY_CELERY, of_base=dir(cls.__mro__[1]))
        run = getattr_static(cls, "run")
        unbound = isinstance(run, staticmethod)
        fun = None if run is Task.run else run.__func__ if unbound else run
        options = {option: getattr(cls, option) for option in OPTIONS}
        cls.declaration = declare(name, fun, not unbound, options)
        if not hasattr(cls.__call__, "_marks_body"):  # a class of the user's own may never call super's
            cls.__call__ = ending(_marking_body(cls.__call__))  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_run() is None or self.request.called_directly:
            return super().__call__(*args, **kwargs)
        return self.run(*args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish a run, as Celery does; a user id or channel that can't work is refused here.

        Raises:
            ArgumentError: an argument that names the owner or the channel is unusable.
        """
        self._check_arguments(args or (), kwargs or {})
        return super().apply_async(args, kwargs, **options)

    def replace(self, sig: Any) -> Any:
        """Go on as `sig` under this run's id, as Celery does; the run's row goes on too."""
        run = current_run()
        if run is not None:
            self.app.bridge.fence.refuse_lost(run)
            run.handed_over = True
            if run.attempt > 1:
                sig = counting_on(self.app, sig, run.attempt - 1)
        with handing_over(self.request):
            return super().replace(sig)

    def retry(self, *args: Any, **options: Any) -> Any:
        """Try again, as Celery does; not for an attempt whose run goes on elsewhere.

        While the broker is away this waits for it, unless a `retry_policy` is given: Celery would give up
        after seconds, and could tell nobody. A time limit, a revocation or a cold shutdown ends the wait.
        """
        run = current_run()
        if run is not None:
            self.app.bridge.fence.refuse_lost(run)
        reason = args[2] if len(args) > 2 else options.get("exc")
        waits = not (self.request.is_eager or "retry_policy" in options or options.get("retry") is False)
        attempt = NextAttempt(run, reason or Retry(), waits)
        is_logged = False
        while True:
            try:
                return self._retry_now(attempt, *args, **options)
            except _NotPublished:
                if not is_logged:
                    log.warning("run %s is to be tried again, and waits for the broker", self.request.id)
                is_logged = True
                time.sleep(_TRIES_AGAIN_AFTER)

    def _retry_now(self, attempt: NextAttempt, *args: Any, **options: Any) -> Any:
        with handing_over(self.request), sending_next(attempt):
            try:
                return super().retry(*args, **options)
            except Reject as error:
                if attempt.waits and isinstance(error.reason, OperationalError):
                    raise _NotPublished from error
                raise

    def hold(self, name: str, seconds: float | timedelta, *, key: Any = WHOLE) -> None:
        """Keep every worker from starting what a limit or rate counts, as a provider's `Retry-After` asks.

        A shorter time never shortens a longer one. Where Redis is away the run goes on without it.

        >>> self.hold("openai", float(response.headers["Retry-After"]))

        Raises:
            ArgumentError: no limit or rate goes by this name, or the time cannot work.
        """
        try:
            self.app.bridge.limits.hold(name, seconds, key=key)
        except LimitsUnavailable as error:
            log.warning("%s is not held: %s", name, error)

    def _check_arguments(self, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        declaration = self.declaration
        unused = declaration.channel is None and declaration.owner not in kwargs and not args
        if unused or not declaration.mirror:
            return
        arguments = declaration.arguments(args, kwargs)
        declaration.owner_of(arguments)
        declaration.channel_of(arguments)

    # The progress API: the run's own, from wherever the task is at hand

    @property
    def _run(self) -> Run:
        return current_run() or detached_run()

    def progress(
        self, current: float | None = None, total: float | None = None, message: str | None = None
    ) -> None:
        """Tell how far the run is; see `Run.progress`."""
        self._run.progress(current, total, message)

    def track(self, items: Iterable[T], message: str | None = None, total: int | None = None) -> Iterator[T]:
        """Go through items and report progress by itself; see `Run.track`."""
        return self._run.track(items, message, total)

    def step(self, name: str) -> None:
        """Tell which step begins; see `Run.step`."""
        self._run.step(name)

    def log(self, message: str, level: str = "info", **data: Any) -> None:
        """Write a line into the run's log; see `Run.log`."""
        self._run.log(message, level, **data)

    def result_url(self, url: str) -> None:
        """Link the result on the run's row; see `Run.result_url`."""
        self._run.result_url(url)

    def checkpoint(self, state: Any) -> None:
        """Keep a small JSON value for the next attempt; see `Run.checkpoint`."""
        self._run.checkpoint(state)

    @property
    def last_checkpoint(self) -> Any:
        """What `checkpoint` kept last; see `Run.last_checkpoint`."""
        return self._run.last_checkpoint


def _marking_body(call: Callable[..., Any]) -> Callable[..., Any]:
    """`__call__` that lets its run know when the body executes: what it publishes then is its child."""

    @wraps(call)
    def marking(self: BridgeTask, *args: Any, **kwargs: Any) -> Any:
        run = current_run()
        if run is None or run.in_body or self.request.called_directly:
            return call(self, *args, **kwargs)
        if run.problem is not None:
            raise PublicError(str(run.problem), code="bad_arguments") from run.problem
        run.in_body = True
        try:
            result = call(self, *args, **kwargs)
        except Exception:
            self.app.bridge.fence.refuse_lost(run)
            raise
        finally:
            run.in_body = False
        self.app.bridge.fence.refuse_lost(run)
        return result

    marking._marks_body = True  # type: ignore[attr-defined]
    return marking
