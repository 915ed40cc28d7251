"""A run as its own body sees it: progress, steps, log lines, result link, checkpoint.

Every call is memory only; the appender carries it away. See `bridge.current` for the run that executes.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Final, Protocol, TypeVar

from bridge.appender import Reporter
from bridge.checkpoint import Checkpoint, Counts
from bridge.errors import ArgumentError, PayloadTooLarge
from bridge.events import LOG_LEVELS, LogLine, Patch, fold
from bridge.given import LARGEST_COUNT, checkpoint_state, count, line_data
from bridge.lifecycle import Identity
from bridge.limits.fence import lease_lost
from bridge.outbox import Outbox, OutboxUnavailable
from bridge.text import LOG_LIMIT, MESSAGE_LIMIT, lines_of, public, shorten

T = TypeVar("T")
logger = logging.getLogger(__name__)

# No //host and /\host, which browsers take for another site's address; no blanks, no control characters.
_LINK: Final = re.compile(r"(?:https?://|/(?![/\\]))[^\s\x00-\x1f\x7f-\x9f]{0,1990}")


class Courier(Protocol):
    """What a run needs of the appender: soon, now, and whether its lease is lost."""

    def mark(self, reporter: Reporter) -> None: ...

    def flush(self, reporter: Reporter) -> None: ...

    def settle(self, reporter: Reporter) -> None: ...

    def look(self, reporter: Reporter) -> None: ...


class Run:
    """One attempt of one run, in the process that executes it; safe to hand to helper threads.

    Args:
        identity: the row, task, owner and channel. attempt: from 1.
        interval: least seconds between two appended reports of progress.
        nesting: how often the run was replaced under its id. is_first: no earlier execution is known of.
    """

    # fmt: off
    __slots__ = (
        "_appender", "_checkpoint", "_counts", "_due_at", "_has_ended", "_has_told", "_interval", "_lock",
        "_marked", "_message", "_pending", "_told_counts", "_told_message", "_unkept", "_urgent", "attempt",
        "began", "chained", "handed_over", "has_told_why", "holder", "identity", "in_body", "lease_lost",
        "outer", "problem", "root_id", "run_id",
    )
    # fmt: on

    def __init__(
        self,
        identity: Identity,
        attempt: int,
        appender: Courier,
        outbox: Outbox,
        interval: float,
        nesting: int = 0,
        is_first: bool = True,
    ) -> None:
        self.identity, self.attempt = identity, attempt
        self.run_id, self.root_id = identity.run_id, identity.root_id
        self.in_body = False  # from the call of the body to its return
        self.handed_over = False  # to a replacement that goes on under the same id
        self.has_told_why = False  # there is to be another attempt
        self.chained = False  # a chain goes on after this run, with one task
        self.outer: Run | None = None
        self.holder: str | None = None  # the lease of this execution
        self.lease_lost = False
        self.began = time.monotonic()
        self.problem: ArgumentError | None = None  # why the body must not start
        self._appender, self._interval = appender, interval
        self._lock = threading.Lock()
        self._pending: list[Patch] = []
        self._counts: Counts | None = None
        self._message: str | None = None
        self._told_counts: Counts | None = None
        self._told_message: str | None = None
        self._marked = self._urgent = False
        self._due_at = -math.inf
        self._checkpoint = Checkpoint(outbox, self.run_id, attempt, nesting, is_first)
        self._unkept = False  # the last checkpoint, as Redis was away
        self._has_told = False  # more than progress, since the last checkpoint
        self._has_ended = False  # and its end was handed on

    # What a task says

    def progress(
        self, current: float | None = None, total: float | None = None, message: str | None = None
    ) -> None:
        """Tell how far the run is: `current` of `total`, and what it is doing.

        Takes microseconds and does no I/O. The percentage is derived; what is left out stays as it was.
        A message above 500 characters is shortened on the bar and kept whole in the run's log.

        >>> run.progress(3, 10, "Importing mastodon...")

        Raises:
            ArgumentError: a count is negative, not finite or not a number.
            LeaseLost: the worker was taken for dead, and the run goes on elsewhere.
        """
        if self.lease_lost:
            raise lease_lost(self.run_id)
        if message is not None:
            if message.__class__ is not str or len(message) > MESSAGE_LIMIT:
                message = self._fitting(message)
            self._message = message
        if current is not None:
            if (
                current.__class__ is not int
                or total.__class__ is not int
                or not 0 <= current <= LARGEST_COUNT
                or not 0 < total <= LARGEST_COUNT
            ):
                current, total = count("current", current), count("total", total)
            self._counts = (current, total)  # type: ignore[assignment]
        elif total is not None:
            raise ArgumentError("current", current, f"give current as well as total={total!r}")
        if not self._marked:
            self._marked = True
            self._appender.mark(self)

    def track(self, items: Iterable[T], message: str | None = None, total: int | None = None) -> Iterator[T]:
        """Go through `items` and report progress by itself, in the manner of tqdm.

        >>> for post in run.track(posts, "Importing"):
        ...     store(post)
        """
        if total is None:
            total = len(items) if isinstance(items, Sized) else None
        self.progress(0, total, message)
        for done, item in enumerate(items, 1):
            yield item
            self.progress(done, total)

    def step(self, name: str) -> None:
        """Tell which step of the work begins; shown beside the bar and never shed."""
        self._change({"step": public(self._fitting(name))})

    def log(self, message: str, level: str = "info", **data: Any) -> None:
        """Write a numbered line into the run's log, which its user can read; `data` is JSON.

        Lines above 4,000 characters go on in the next row.

        Raises:
            ArgumentError: an unknown level, or data that is no JSON.
            PayloadTooLarge: a text above 64,000 characters or data above 16,000 bytes.
        """
        if level not in LOG_LEVELS:
            raise ArgumentError("level", level, f"is one of {', '.join(LOG_LEVELS)}")
        text = str(message)
        if len(text) > LOG_LIMIT:
            raise PayloadTooLarge("log", len(text), LOG_LIMIT, "store it elsewhere and log where it is")
        checked, at = line_data(data), time.time()
        pieces = [LogLine(level, piece, at) for piece in lines_of(public(text))]
        pieces[0].data = checked
        self._change({}, pieces)

    def result_url(self, url: str) -> None:
        """Link the result, such as a signed Storage URL, on the run's row.

        Raises:
            ArgumentError: the URL is not http(s) or an absolute path.
        """
        if not isinstance(url, str) or not _LINK.fullmatch(url):
            raise ArgumentError("result_url", url, "give an http(s) URL or a path, at most 2,000 characters")
        self._change({"result_url": url})

    def checkpoint(self, state: Any) -> None:
        """Keep `state`, a small JSON value, for the next attempt; None forgets what was kept.

        It is stored when this returns, as are the log lines and steps told before: a round trip to Redis, or
        two. Where Redis is away the run goes on, and the log says that nothing is kept.

        >>> for number in range(self.last_checkpoint or 0, len(rows)):
        ...     send(rows[number])
        ...     self.progress(number + 1, len(rows))
        ...     self.checkpoint(number + 1)

        Raises:
            ArgumentError: the value is no JSON. PayloadTooLarge: it is above 64,000 bytes.
            LeaseLost: the worker was taken for dead, and the run goes on elsewhere.
        """
        if self.lease_lost:
            raise lease_lost(self.run_id)
        raw = checkpoint_state(state)
        if self._has_told:  # the next attempt will not tell it again
            self._has_told = False
            self._appender.settle(self)
        try:
            is_kept = self._checkpoint.save(raw, self._counts)
        except OutboxUnavailable as error:
            if not self._unkept:
                logger.warning("run %s: %s; a next attempt would start from an older one", self.run_id, error)
            self._unkept = True
            return
        self._unkept = False
        if not is_kept:
            self._refuse_overtaken()

    @property
    def last_checkpoint(self) -> Any:
        """What this run's `checkpoint` kept last, in this attempt or an earlier one; None at first.

        An attempt that goes on from one never shows less on the bar than was shown before: until it has
        come as far, the percentage and the counts stay as they are. Without one, the bar starts over.

        Raises:
            OutboxUnavailable: Redis does not tell, and the run would do again what it has done.
        """
        self.take_over()
        return self._checkpoint.value

    def take_over(self) -> None:
        """Take over what an earlier execution has kept, and tell again how far its bar had come.

        Raises:
            OutboxUnavailable: Redis does not tell, and there may be something.
        """
        try:
            told = self._checkpoint.take()
        except OutboxUnavailable:
            if not self._checkpoint.is_first:
                raise
        else:
            if told is not None and self._counts is None:
                self._counts = told

    def _refuse_overtaken(self) -> None:
        self._appender.look(self)
        if self.lease_lost:
            raise lease_lost(self.run_id)
        logger.warning("run %s: a later execution has its checkpoint; this one keeps none", self.run_id)

    # What Celery says of it

    def change(self, fields: dict[str, Any], logs: list[LogLine] | None = None) -> None:
        """Record a state change; it is appended at the next flush."""
        self._change(fields, logs)

    def finish(self, fields: dict[str, Any], logs: list[LogLine] | None = None) -> None:
        """Record the last word of this attempt and append it, with all that is pending, before returning."""
        with self._lock:
            self._add(fields, logs)
        self._appender.flush(self)
        self._has_ended = True

    def flush(self) -> None:
        """Append all that is pending before returning."""
        if not self.is_over:
            self._appender.flush(self)

    @property
    def is_over(self) -> bool:
        """Whether its end was handed on, and nothing has been told since."""
        return self._has_ended and not self._marked

    def in_forked_child(self) -> None:
        """What is pending is the parent's to tell, and its appender may have held the lock."""
        self._lock = threading.Lock()
        self._pending, self._marked = [], False

    # What the appender asks

    def due(self, now: float) -> float:
        return -1.0 if self._urgent else self._due_at - now

    def take(self, now: float) -> list[Patch]:
        with self._lock:
            self._marked = self._urgent = False
            self._add_progress()
            patches, self._pending = fold(self._pending), []
            # Paced from when it was due, not from when it was taken: a late flush does not delay the next.
            self._due_at = max(self._due_at, now - self._interval) + self._interval
            return patches

    def _change(self, fields: dict[str, Any], logs: list[LogLine] | None = None) -> None:
        with self._lock:
            self._add(fields, logs)
            self._urgent = self._urgent or bool(fields)
            self._has_told = True
        if not self._marked:
            self._marked = True
            self._appender.mark(self)

    def _add(self, fields: dict[str, Any], logs: list[LogLine] | None) -> None:
        self._add_progress()
        self._pending.append(Patch(self.run_id, self.attempt, time.time(), fields, logs or []))

    def _add_progress(self) -> None:
        # The body's thread writes these two at any time: read once, compare, never write them here.
        counts, message = self._counts, self._message
        fields: dict[str, Any] = {}
        if counts is not None and counts is not self._told_counts:
            self._told_counts = counts
            if not self._checkpoint.falls_back(counts):
                fields |= _shown(counts)
        if message is not None and message is not self._told_message:
            self._told_message = message
            fields["message"] = public(message)
        if fields:
            self._pending.append(Patch(self.run_id, self.attempt, time.time(), fields))

    def _fitting(self, text: Any) -> str:
        text = str(text)
        if len(text) > MESSAGE_LIMIT:
            logger.warning(
                "run %s: a message of %d characters is shortened to %d on the bar; its log has it whole",
                self.run_id, len(text), MESSAGE_LIMIT,
            )  # fmt: skip
            self.log(shorten(text, LOG_LIMIT))
        return shorten(text)


def _shown(counts: Counts) -> dict[str, Any]:
    current, total = counts
    percent = {"progress": max(0, min(100, current * 100 // total))} if total else {}
    return {"current": current, "total": total, **percent}
