"""In a pool process: what ends a run there is not cut off between its body and its result.

Celery's SIGTERM, of a cold shutdown, a revocation or a lost connection, raises `SystemExit` wherever it
comes. Between the last line of a body and the moment when the worker's main process can read what came of
it, that would have a run that has ended executed again; or have one attempt follow another twice, or the
rest of a chain. So there, and from where a body publishes what its run goes on with, the signal waits.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

from celery.exceptions import TaskPredicate

_WRITTEN_WITHIN: Final = 3.0
"""Seconds; then nothing waits any longer for the result's backend, or the broker, to answer."""


class Ending:
    """How far the one run is that a pool process executes: in its body, or at its end but for its result."""

    def __init__(self, number: int, results: Any, ready: int) -> None:
        self.in_body = self.is_ending = self._is_asked = False
        self._number, self._ready = number, ready
        self._put: Callable[[Any], None] = results.put
        self._stop: Any = signal.getsignal(number)
        results.put = self._putting
        signal.signal(number, self._stopping)

    def _stopping(self, number: int, frame: Any) -> None:
        if not self.is_ending:
            self._stop(number, frame)
        elif not self._is_asked:
            self._is_asked = True
            # `threading` has locks, whose holder this may have interrupted.
            _thread.start_new_thread(self._insist, ())

    def _insist(self) -> None:
        time.sleep(_WRITTEN_WITHIN)
        if self.is_ending:
            self.is_ending = False
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, self._number)  # that thread, as it waits for whoever does not answer

    def _putting(self, message: Any) -> None:
        self._put(message)
        if message and message[0] == self._ready:
            self.in_body = self.is_ending = False
            if self._is_asked:
                self._stop(self._number, None)


_ending: Ending | None = None


def let_runs_end() -> None:
    """For `worker_process_init`: billiard sets its signal handlers right after that, and then works."""
    from billiard.common import TERM_SIGNAL
    from billiard.pool import READY, Worker

    work = Worker.workloop

    @wraps(work)
    def working(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _ending
        if callable(signal.getsignal(TERM_SIGNAL)):
            _ending = Ending(TERM_SIGNAL, self.outq, READY)
        return work(self, *args, **kwargs)

    Worker.workloop = working


def ending(call: Callable[..., Any]) -> Callable[..., Any]:
    """A task's `__call__`, after which its run ends; but for what a body calls itself."""

    @wraps(call)
    def body(*args: Any, **kwargs: Any) -> Any:
        state = _ending
        if state is None or state.in_body:
            return call(*args, **kwargs)
        state.in_body, state.is_ending = True, False
        try:
            return call(*args, **kwargs)
        finally:
            state.in_body, state.is_ending = False, True

    return body


@contextmanager
def handing_over(request: Any) -> Iterator[None]:
    """Around the publication of what a run goes on with: its body has nothing to do after it."""
    state = _ending
    if state is None or not state.in_body or request.is_eager:  # within another run's body
        yield
        return
    state.is_ending = True
    try:
        yield
    except TaskPredicate:  # Celery's way out of a body
        raise
    except BaseException:
        state.is_ending = False
        raise
