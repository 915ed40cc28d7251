"""The appender of a process: takes what runs report and appends it to the outbox in the background.

A run that reports marks itself; a thread, started by the first report, appends what marked runs
have pending every flush interval, progress of one run at most every progress interval. State changes
that something waits for are appended on the caller's thread. While the outbox is away, everything is
folded and kept in order, and tried again; tasks go on.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from weakref import WeakSet

from bridge.backlog import squeezed
from bridge.events import Patch
from bridge.limits.fence import LOOK_EVERY, Fence
from bridge.outbox import Entry, Outbox, OutboxUnavailable, shed
from bridge.settings import OutboxSettings

log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 1.0
_WARN_EVERY: Final = 10.0
_BATCH: Final = 500


class Reporter(Protocol):
    """A run with something to tell: what the appender knows of it."""

    root_id: str
    run_id: str
    holder: str | None
    lease_lost: bool
    began: float

    @property
    def is_over(self) -> bool:
        """Whether its end was appended, and all before."""

    def due(self, now: float) -> float:
        """Seconds until this run's pending report may be appended; 0 or less is now."""

    def take(self, now: float) -> list[Patch]:
        """Hand over what is pending."""


class Appender:
    """One per `Bridge` and process; safe under prefork, threads, gevent and solo.

    Who reports waits for the outbox once at most, for the outbox's own timeout. As long as it is known
    to be away nobody waits: only the thread tries it again.
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: OutboxSettings,
        clock: Callable[[], float] = time.monotonic,
        fence: Fence | None = None,
    ) -> None:
        self._outbox, self._fence = outbox, fence
        self._interval = settings.flush_interval.total_seconds()
        self._room = settings.buffered_runs
        self._clock = clock
        self._reset()
        _appenders.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()  # guards what is waiting; never held during I/O
        self._sending = threading.Lock()  # one sender at a time keeps the order
        self._turn = _Turn()
        self._interrupting: deque[Entry] = deque()
        self._wakeup = threading.Event()
        self._marked: deque[Reporter] = deque()
        self._leased: set[Reporter] = set()  # those that reported since the last look
        self._looked_at = -math.inf
        self._waiting: list[Entry] = []
        self._away = False
        self._try_at = 0.0
        self._thread: threading.Thread | None = None
        self._warned_at = -math.inf
        self._shed = 0

    def stats(self) -> dict[str, Any]:
        """What this process keeps back, what it has shed, and how full it knows the outbox to be."""
        return {
            "waiting": len(self._waiting),
            "shed": self._shed,
            "fullness": round(self._outbox.fullness(), 4),
            "away": self._away,
        }

    def mark(self, reporter: Reporter) -> None:
        """Ask for the reporter's pending report to be appended soon; called once until it is taken."""
        self._marked.append(reporter)
        if not self._wakeup.is_set():
            self._wakeup.set()
        if self._thread is None:
            self._start()

    def append(self, entries: Sequence[Entry]) -> None:
        """Append now, on this thread, after everything that was to come before."""
        self._append(lambda: entries)

    def flush(self, reporter: Reporter) -> None:
        """Append now what this reporter has pending."""
        self._append(lambda: [(reporter.root_id, patch) for patch in reporter.take(self._clock())])

    def settle(self, reporter: Reporter) -> None:
        """Append now what this reporter has pending, and wait for what the thread has taken of it already."""
        self.flush(reporter)
        if not self._away:
            try:
                self._turn.is_taken = True
                with self._sending:
                    pass
            finally:
                self._turn.is_taken = False

    def look(self, reporter: Reporter) -> None:
        """Ask now whether the reporter still has its lease."""
        if self._fence is not None:
            self._fence.look([reporter])

    def close(self) -> None:
        """Append everything that is pending; what the outbox does not take within its timeout is reported."""
        self._thread = None
        self._wakeup.set()
        self._append(lambda: self._take_marked(everything=True), again=True)
        if self._waiting:
            log.error("run events lost at shutdown, the outbox is away: %d", len(self._waiting))

    def _append(self, gather: Callable[[], Sequence[Entry]], again: bool = False) -> None:
        """Append what `gather` gives: taking and adding are one, or progress could follow a final state.

        Celery stops runs in signal handlers. One that interrupts this very thread in the midst of an append
        would wait for its locks for ever: what it tells follows once that append goes on.
        """
        if self._turn.is_taken:
            self._interrupting.extend(gather())
            return
        try:
            self._turn.is_taken = True
            with self._lock:
                self._add(gather())
            self._send(again)
        finally:  # nothing is called here, where a handler that raises could leave the turn taken
            self._turn.is_taken = False
        if self._interrupting:
            self._append(list)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskcast-appender", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            self._wakeup.wait(_RETRY_AFTER if self._waiting else None)
            self._wakeup.clear()
            try:
                with self._lock:
                    self._add(self._take_marked())
                self._send(again=self._clock() >= self._try_at)
                self._look_at_leases()
            except Exception:
                log.exception("the appender goes on after an error")
            if self._marked:
                self._wakeup.set()
            time.sleep(self._interval)

    def _look_at_leases(self) -> None:
        if self._fence is not None and self._clock() - self._looked_at >= LOOK_EVERY:
            self._looked_at = self._clock()
            runs, self._leased = self._leased, set()
            self._fence.look(run for run in runs if not run.is_over)

    def _take_marked(self, everything: bool = False) -> list[Entry]:
        now = self._clock()
        entries: list[Entry] = []
        for _ in range(len(self._marked)):
            reporter = self._marked.popleft()
            if reporter.is_over:
                continue
            if everything or reporter.due(now) <= 0:
                root = reporter.root_id
                if self._fence is not None:
                    self._leased.add(reporter)
                entries.extend((root, patch) for patch in reporter.take(now))
            else:
                self._marked.append(reporter)
        return entries

    def _add(self, entries: Sequence[Entry]) -> None:
        self._waiting.extend(entries)
        while self._interrupting:
            self._waiting.append(self._interrupting.popleft())
        if len(self._waiting) > 2 * self._room:
            before, self._waiting = self._waiting, squeezed(self._waiting, self._room)
            self._warn(
                "%d run events wait for the outbox; kept the last states: %d", len(before), len(self._waiting)
            )

    def _send(self, again: bool = False) -> None:
        while self._waiting and (again or not self._away):
            with self._sending:
                # Who waited here for another's failure does not try what has just failed.
                if (self._away and not again) or not self._send_first():
                    return

    def _send_first(self) -> bool:
        batch: list[Entry] = []
        try:
            with self._lock:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            self._outbox.append(self._relieved(batch))  # even if nothing is left: it asks how full it is
        except BaseException as error:  # a soft time limit, too, raises wherever the thread is
            with self._lock:
                self._waiting[:0] = batch
            self._try_at = self._clock() + _RETRY_AFTER
            if self._thread is None:
                self._start()
            self._wakeup.set()
            if not isinstance(error, OutboxUnavailable):
                raise
            if not self._away:
                log.error("%s; tasks go on, their events are kept in memory and tried again", error)
            self._away = True
            return False
        if self._away:
            self._away = False
            log.warning("the outbox is back; events that were kept: %d", len(batch) + len(self._waiting))
        return True

    def _relieved(self, entries: list[Entry]) -> list[Entry]:
        left = shed(entries, self._outbox.fullness())
        self._shed += len(entries) - len(left)
        if len(left) < len(entries):
            self._warn("the outbox is full; reports that this process has shed so far: %d", self._shed)
        return left

    def _warn(self, text: str, *values: float) -> None:
        if self._clock() - self._warned_at > _WARN_EVERY:
            self._warned_at = self._clock()
            log.error(text, *values)


class _Turn(threading.local):
    """Whether this thread is in the midst of an append."""

    is_taken = False


_appenders: WeakSet[Appender] = WeakSet()


def _forget_parent() -> None:
    # A forked child has the parent's thread as a dead object, and its pending reports are the parent's.
    for appender in _appenders:
        appender._reset()


def _append_the_rest() -> None:
    for appender in list(_appenders):
        if appender._waiting or appender._marked:
            appender.close()


os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_append_the_rest)  # a script that dispatched during an outage, and ends
