"""What can never be written: kept apart with its reason, to be looked at, replayed or dropped.

A dead entry's id is a stream id of Redis, so it tells when the entry was set apart. `entry` is the id
under which the bytes lay in the outbox first: a replay appends them under a new id and hands the
first one on, so that they count as old as they are and take nothing newer back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from redis import Redis

from bridge.errors import TaskcastError
from bridge.outbox import ENTRY_FIELD, stream_key
from bridge.scripts import source
from bridge.settings import OutboxSettings
from bridge.text import public, shorten

T = TypeVar("T")

DEAD_LENGTH: Final = 10_000
"""Dead entries that are kept; the oldest go first."""

_REASON_LIMIT: Final = 1_000
_PAGE: Final = 200
_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_START: Final = re.compile(rb'\{\s*"id"\s*:\s*"([0-9a-fA-F-]{36})"')
_UNKNOWN: Final = datetime.fromtimestamp(0, UTC)


class UnknownDeadEntry(TaskcastError, LookupError):
    """There is no dead entry of this id; it was replayed or dropped, or has never been."""

    def __init__(self, dead_id: str) -> None:
        super().__init__(
            f"no dead entry {dead_id[:60]!r}; `celery -A <app> bridge dead` lists those there are"
        )
        self.dead_id = dead_id


@dataclass(frozen=True, slots=True)
class DeadEntry:
    """One entry as it was set apart: by which replica, from where, and why."""

    dead_id: str
    partition: str
    entry_id: str
    reason: str
    replica: str
    raw: bytes

    @property
    def at(self) -> datetime:
        """When it was set apart, by the clock of Redis."""
        try:
            return datetime.fromtimestamp(int(self.dead_id.partition("-")[0]) / 1000, UTC)
        except (ValueError, OverflowError, OSError):  # an id that somebody else made
            return _UNKNOWN

    @property
    def run_id(self) -> str | None:
        """The run that it tells of, where that can be read."""
        found = _START.match(self.raw)
        try:
            return str(UUID(found[1].decode() if found else json.loads(self.raw)["id"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def shown(self) -> str:
        """The bytes as text for a terminal: what is not printable is escaped."""
        text = self.raw.decode("utf-8", "backslashreplace")
        return "".join(each if each.isprintable() else _escaped(each) for each in text)

    def summary(self) -> dict[str, Any]:
        """All but the bytes, as JSON."""
        return {
            "id": self.dead_id,
            "at": self.at.isoformat(),
            "partition": self.partition,
            "entry": self.entry_id,
            "run_id": self.run_id,
            "replica": self.replica,
            "bytes": len(self.raw),
            "reason": self.reason,
        }


def dead_key(prefix: str) -> str:
    """The Redis key of the stream of dead entries."""
    return f"{prefix}:dead"


def burial(partition: int, entry_id: str, raw: bytes, reason: str, replica: str) -> dict[str, Any]:
    """The fields of a dead entry."""
    return {
        "reason": shorten(reason.encode("utf-8", "replace").decode(), _REASON_LIMIT),
        "partition": partition,
        "entry": entry_id,
        "replica": replica,
        ENTRY_FIELD: raw,
    }


class DeadEntries:
    """The dead entries of one deployment, for operators."""

    def __init__(self, redis: Redis, settings: OutboxSettings) -> None:
        self._redis, self._settings = redis, settings
        self._key = dead_key(settings.prefix)
        self._replay: Any = redis.register_script(source("replay_dead"))

    def __iter__(self) -> Iterator[DeadEntry]:
        """All that are there, the longest dead first, read in pages."""
        start = "-"
        while page := self._range(start, "+", _PAGE):
            yield from page
            start = f"({page[-1].dead_id}"

    def get(self, dead_id: str) -> DeadEntry:
        """One of them.

        Raises:
            UnknownDeadEntry
        """
        found = self._range(dead_id, dead_id, 1) if _ID.fullmatch(dead_id) else []
        if not found:
            raise UnknownDeadEntry(dead_id)
        return found[0]

    def named(self, ids: Sequence[str]) -> list[DeadEntry]:
        """Those of these ids, or all that are there now when none is given.

        Raises:
            UnknownDeadEntry
        """
        return [self.get(each) for each in dict.fromkeys(ids)] if ids else list(self)

    def replay(self, entries: Iterable[DeadEntry]) -> int:
        """Append these to the outbox again, the oldest event first; returns how many were still there."""
        ordered = sorted((_order(each.entry_id), each.dead_id, self._stream(each)) for each in entries)
        count = 0
        for page in _pages(ordered):
            keys = [self._key, *(stream for _, _, stream in page)]
            count += int(self._replay(keys=keys, args=[dead_id for _, dead_id, _ in page]))
        return count

    def drop(self, entries: Iterable[DeadEntry]) -> int:
        """Forget these for good; returns how many were still there."""
        pages = _pages([each.dead_id for each in entries])
        return sum(int(self._redis.xdel(self._key, *page)) for page in pages)

    def _stream(self, entry: DeadEntry) -> str:
        # Had there been more partitions, it goes where a bridge reads: its version keeps the order.
        partition = int(entry.partition) if entry.partition.isdecimal() else 0
        return stream_key(self._settings.prefix, partition % self._settings.partitions)

    def _range(self, start: str, end: str, count: int) -> list[DeadEntry]:
        found: Any = self._redis.xrange(self._key, start, end, count)
        return [_read(dead_id, fields) for dead_id, fields in found]


def table(entries: Iterable[DeadEntry]) -> Iterator[str]:
    """Lines for people, one an entry, below a heading."""
    yield f"{'id':<20} {'when':<19} {'partition':>9} {'run':<36} reason"
    for each in entries:
        when = f"{each.at.astimezone():%Y-%m-%d %H:%M:%S}"
        reason = shorten(_plain(each.reason), 120)
        yield f"{each.dead_id:<20} {when} {_plain(each.partition):>9} {each.run_id or '?':<36} {reason}"


def described(entry: DeadEntry) -> Iterator[str]:
    """All of one entry, a line for each part, the bytes last."""
    for name, value in entry.summary().items():
        yield f"{name:<10} {_plain('?' if value is None else str(value))}"
    yield ""
    yield entry.shown()


def _plain(text: str) -> str:
    return " ".join(public(text).split())


def _pages(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _PAGE] for start in range(0, len(items), _PAGE))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def _order(entry_id: str) -> tuple[int, int]:
    if not _ID.fullmatch(entry_id):
        return (0, 0)
    milliseconds, _, sequence = entry_id.partition("-")
    return (int(milliseconds), int(sequence))


def _read(dead_id: bytes, fields: dict[bytes, bytes]) -> DeadEntry:
    def text(name: str) -> str:
        return fields.get(name.encode(), b"").decode("utf-8", "replace")

    raw = fields.get(ENTRY_FIELD.encode(), b"")
    return DeadEntry(dead_id.decode(), text("partition"), text("entry"), text("reason"), text("replica"), raw)
