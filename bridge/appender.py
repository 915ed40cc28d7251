"""The appender of a process: takes what runs report and appends it to the outbox in the background.

A run that reports marks itself; a thread, started by the first report, appends what marked runs
have pending every flush interval, progress of one run at most every progress interval. State changes
that something waits for are appended on the caller's thread. While the outbox is away, everything is
folded and kept in order, and tried again; tasks go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from weakref import WeakSet

from bridge.events import Patch, fold
from bridge.outbox import Entry, Outbox, OutboxUnavailable, shed
from bridge.settings import OutboxSettings

log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 1.0
_LOUD: Final = 0.8
_BATCH: Final = 500


class Reporter(Protocol):
    """A run with something to tell: what the appender knows of it."""

    root_id: str

    def due(self, now: float) -> float:
        """Seconds until this run's pending report may be appended; 0 or less is now."""

    def take(self, now: float) -> list[Patch]:
        """Hand over what is pending."""


class Appender:
    """One per `Bridge` and process; safe under prefork, threads, gevent and solo."""

    def __init__(self, outbox: Outbox, settings: OutboxSettings, clock: Callable[[], float] = time.monotonic):
        self._outbox = outbox
        self._interval = settings.flush_interval.total_seconds()
        self._room = settings.buffered_runs
        self._clock = clock
        self._reset()
        _appenders.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wakeup = threading.Event()
        self._marked: deque[Reporter] = deque()
        self._backlog: list[Entry] = []
        self._try_at = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._warned_at = 0.0

    def mark(self, reporter: Reporter) -> None:
        """Ask for the reporter's pending report to be appended soon; called once until it is taken."""
        self._marked.append(reporter)
        if not self._wakeup.is_set():
            self._wakeup.set()
        if self._thread is None:
            self._start()

    def append(self, entries: Sequence[Entry]) -> None:
        """Append now, on this thread, after everything that was to come before."""
        with self._lock:
            self._append(list(entries))

    def flush(self, reporter: Reporter) -> None:
        """Append now what this reporter has pending."""
        with self._lock:
            root = reporter.root_id
            self._append([(root, patch) for patch in reporter.take(self._clock())])

    def close(self) -> None:
        """Append everything that is pending; what Redis does not take within its timeout is reported."""
        self._stopping = True
        self._wakeup.set()
        with self._lock:
            self._try_at = 0.0
            self._append(self._take_marked(everything=True))
            if self._backlog:
                log.error("run events lost at shutdown, the outbox is away: %d", len(self._backlog))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="taskcast-appender", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self._wakeup.wait(_RETRY_AFTER if self._backlog else None)
            self._wakeup.clear()
            try:
                with self._lock:
                    self._append(self._take_marked())
            except Exception:
                log.exception("the appender goes on after an error")
            if self._marked:
                self._wakeup.set()
            time.sleep(self._interval)

    def _take_marked(self, everything: bool = False) -> list[Entry]:
        now = self._clock()
        entries: list[Entry] = []
        for _ in range(len(self._marked)):
            reporter = self._marked.popleft()
            if everything or reporter.due(now) <= 0:
                root = reporter.root_id
                entries.extend((root, patch) for patch in reporter.take(now))
            else:
                self._marked.append(reporter)
        return entries

    def _append(self, entries: list[Entry]) -> None:
        if self._backlog:
            self._backlog.extend(entries)
            if self._clock() < self._try_at:
                self._make_room()
                return
            entries = self._merged(self._backlog)
        entries = self._relieved(entries)
        done = 0
        try:
            while done < len(entries):
                self._outbox.append(entries[done : done + _BATCH])
                done += _BATCH
            if self._backlog:
                log.warning("the outbox is back; appended what was kept: %d", len(entries))
            self._backlog = []
        except OutboxUnavailable as error:
            self._keep(entries[done:], error)

    def _keep(self, entries: list[Entry], error: OutboxUnavailable) -> None:
        if not self._backlog:
            log.error("%s; tasks go on, their events are kept in memory and tried again", error)
        self._backlog = entries
        self._try_at = self._clock() + _RETRY_AFTER
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="taskcast-appender", daemon=True)
            self._thread.start()
        self._wakeup.set()

    def _make_room(self) -> None:
        if len(self._backlog) > 2 * self._room:
            merged = self._merged(self._backlog)
            self._backlog = merged if len(merged) <= self._room else shed(merged)
            if len(self._backlog) < len(merged):
                log.error(
                    "memory for run events is full: dropped progress of %d", len(merged) - len(self._backlog)
                )

    @staticmethod
    def _merged(entries: list[Entry]) -> list[Entry]:
        roots = {patch.run_id: root for root, patch in entries}
        return [(roots[patch.run_id], patch) for patch in fold(patch for _, patch in entries)]

    def _relieved(self, entries: list[Entry]) -> list[Entry]:
        fullness = self._outbox.fullness()
        if fullness < _LOUD:
            return entries
        if self._clock() - self._warned_at > 10:
            self._warned_at = self._clock()
            log.error(
                "the outbox is %d %% full: is a bridge running? Progress is shed at 100 %%, states never",
                fullness * 100,
            )
        return shed(entries) if fullness >= 1 else entries


_appenders: WeakSet[Appender] = WeakSet()


def _forget_parent() -> None:
    # A forked child has the parent's thread as a dead object, and its pending reports are the parent's.
    for appender in _appenders:
        appender._reset()


os.register_at_fork(after_in_child=_forget_parent)
