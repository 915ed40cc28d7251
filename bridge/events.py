"""What happens to a run, as pure data: patches, how they fold, and how they travel.

A `Patch` says what changed on a run. The process that saw the change folds patches of one run
(latest progress wins; status changes and log lines are all kept), the outbox carries them, and the
bridge folds again what one batch brought before it writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

FINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled", "expired"})
STATUSES: Final = FINAL_STATUSES | {
    "scheduled",
    "queued",
    "waiting",
    "in_progress",
    "retrying",
    "cancelling",
}
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

UUID_TEXT: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A UUID as `str(UUID(...))` writes it."""

_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_SEQUENCE_BITS: Final = 20
_STREAM_ID: Final = re.compile(r"([0-9]{1,14})-([0-9]{1,20})")

DEEPEST: Final = 100
"""Levels of an entry's JSON; far deeper ones could be written and not be read again."""

DEEPEST_VALUE: Final = 50
"""Levels of a JSON value that a task gives us to carry."""

_YEAR_10000: Final = 253_402_300_800.0
_WHOLE: Final = {"progress": 2**31, "max_attempts": 2**31, "current": 2**63, "total": 2**63}


class BadEntry(ValueError):
    """An outbox entry that no version of this code has written."""


@dataclass(slots=True)
class LogLine:
    """One line of a run's log; `version` orders it and makes a second delivery harmless."""

    level: str
    message: str
    at: float
    data: dict[str, Any] | None = None
    version: int = 0


@dataclass(slots=True)
class Patch:
    """A change of one run, made by one attempt.

    `fields` are columns of `processing_jobs`. `at` is seconds since the epoch by the writer's clock,
    shown to people, never used for order. `fresh` opens a run or an attempt, and takes nothing back
    when that attempt was already seen going on; `existing` touches known runs only.
    `parts` is how many equal parts this run adds to the run that it reports to. What is `replayed` may be
    older than what its row knows already. What `expected` a version of its row changes nothing once the row
    has moved on.
    """

    run_id: str
    attempt: int
    at: float
    fields: dict[str, Any] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)
    fresh: bool = False
    existing: bool = False
    parts: int = 1
    version: int = 0
    replayed: bool = False
    expected: int | None = None

    @property
    def status(self) -> str | None:
        return self.fields.get("status")

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES

    def absorbs(self, later: Patch) -> bool:
        """Whether `later` can be folded into this patch without losing a status change."""
        return (
            self.run_id == later.run_id
            and self.attempt == later.attempt
            and self.fresh == later.fresh
            and not (self.replayed or later.replayed)  # in one, the old would pass as new
            and self.expected is None is later.expected
            and (later.existing or not self.existing)  # after a patch that makes rows, the row exists
            and not ("status" in self.fields and "status" in later.fields)
        )

    def absorb(self, later: Patch) -> None:
        """Fold `later` into this patch: its fields win, its log lines follow."""
        self.fields.update(later.fields)
        self.logs.extend(later.logs)
        self.at = later.at
        self.version = later.version


def fold(patches: Iterable[Patch]) -> list[Patch]:
    """Merge patches per run, keeping every status change and log line and each run's order."""
    folded: list[Patch] = []
    latest: dict[str, Patch] = {}
    for patch in patches:
        last = latest.get(patch.run_id)
        if last is not None and last.absorbs(patch):
            last.absorb(patch)
        else:
            folded.append(patch)
            latest[patch.run_id] = patch
    return folded


def run_uuid(task_id: object) -> str:
    """The id of the run's row: the Celery task id where it is a UUID, else a UUID derived from it.

    >>> run_uuid("5F7C2B1E-0000-4000-8000-000000000001")
    '5f7c2b1e-0000-4000-8000-000000000001'
    """
    text = str(task_id)
    if UUID_TEXT.fullmatch(text):
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"celery-task:{text}".encode(errors="replace").decode()))


def version_of(stream_id: str) -> int:
    """A Redis stream id as one rising integer below 2**63, good until the year 2248.

    Only the first 2**20 entries of one millisecond stay apart, far above what one Redis appends.
    """
    match = _STREAM_ID.fullmatch(stream_id)
    if match is None:
        raise BadEntry(f"{stream_id!r:.60} is not a stream id")
    milliseconds, sequence = int(match[1]), int(match[2])
    version = (milliseconds << _SEQUENCE_BITS) | min(sequence, (1 << _SEQUENCE_BITS) - 1)
    if version >= 2**63:
        raise BadEntry(f"{stream_id!r:.60} lies in too far a future")
    return version


def encode(patch: Patch) -> bytes:
    """The patch as one outbox entry: compact JSON, defaults left out."""
    entry: dict[str, Any] = {"id": patch.run_id, "n": patch.attempt, "at": round(patch.at, 3)}
    if patch.fields:
        entry["set"] = patch.fields
    if patch.logs:
        entry["logs"] = [_log_entry(line) for line in patch.logs]
    if patch.fresh:
        entry["fresh"] = True
    if patch.existing:
        entry["existing"] = True
    if patch.parts != 1:
        entry["parts"] = patch.parts
    if patch.expected is not None:
        entry["expected"] = patch.expected
    return _JSON.encode(entry).encode("utf-8", "replace")


def decode(stream_id: str, raw: bytes, first: str | None = None) -> Patch:
    """Read an outbox entry back; one that is replayed counts as old as its `first` stream id.

    Raises:
        BadEntry: the bytes are not such an entry; the message says what is wrong, not what is inside.
    """
    version = version_of(stream_id)
    if first is not None:
        version = _earlier(version_of(first), version)
    try:
        entry = json.loads(raw)
        if raw.count(b"[") + raw.count(b"{") > DEEPEST and is_deeper(entry, DEEPEST):
            raise BadEntry(f"nested deeper than {DEEPEST} levels")
        return Patch(
            run_id=str(UUID(entry["id"])),
            attempt=_integer(entry["n"], "n"),
            at=_time(entry["at"]),
            fields=_fields(entry.get("set", {})),
            logs=list(_log_lines(entry.get("logs", []), version)),
            fresh=entry.get("fresh") is True,
            existing=entry.get("existing") is True,
            parts=_integer(entry.get("parts", 1), "parts"),
            version=version,
            replayed=first is not None,
            expected=_expected(entry.get("expected")),
        )
    except BadEntry:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadEntry(f"not an outbox entry ({type(error).__name__})") from error


def is_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more than so many levels of lists and objects.

    >>> is_deeper([[1]], 1)
    True
    """
    if not isinstance(value, list | dict):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(each, levels - 1) for each in inner)


def _earlier(first: int, version: int) -> int:
    if first > version:
        raise BadEntry("it claims to be newer than it is")
    return first


def _expected(version: Any) -> int | None:
    if version is not None and (type(version) is not int or not 0 <= version < 2**63):
        raise BadEntry("expected is no version")
    return version


def _log_entry(line: LogLine) -> list[Any]:
    entry: list[Any] = [line.level, line.message, round(line.at, 3)]
    if line.data is not None:
        entry.append(line.data)
    return entry


def _log_lines(entries: list[list[Any]], version: int) -> Iterator[LogLine]:
    for level, message, at, *rest in entries:
        if level not in LOG_LEVELS or not isinstance(message, str):
            raise BadEntry("a log line has no known level or no text")
        yield LogLine(level, message, _time(at), rest[0] if rest else None, version)


def _fields(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise BadEntry("set is not an object")
    if fields.get("status", "queued") not in STATUSES:
        raise BadEntry("set.status is no status of a run")
    position = fields.get("queue_position")
    if position is not None and _integer(position, "set.queue_position") == 0:
        raise BadEntry("set.queue_position counts from 1")
    if not isinstance(fields.get("wait_reason"), str | None):
        raise BadEntry("set.wait_reason is no text")
    for name in fields.keys() & _WHOLE.keys():
        _check_whole(fields[name], name)
    return fields


def _check_whole(value: Any, name: str) -> None:
    bound = _WHOLE[name]
    if value is not None and (type(value) is not int or not -bound <= value < bound):
        raise BadEntry(f"set.{name} is no whole number that its column holds")


def _time(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < _YEAR_10000:
        raise BadEntry("a time lies out of all years")
    return seconds


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise BadEntry(f"{name} is no count")
    return value
