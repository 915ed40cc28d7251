"""The outbox: a durable stream of run events in Redis, and beside it the checkpoints of unfinished runs."""

from __future__ import annotations

import logging
import math
import time
from binascii import crc32
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

import redis

from bridge.checkpoint import Checkpoint, Kept
from bridge.checkpoints import RedisCheckpoints
from bridge.clock import SharedClock
from bridge.errors import TaskcastError
from bridge.events import Patch, encode
from bridge.fullness import outbox_gauge
from bridge.own_connection import Command, OwnConnection
from bridge.settings import OutboxSettings

log = logging.getLogger(__name__)

ENTRY_FIELD: Final = "e"
FIRST_FIELD: Final = "v"
"""Beside a replayed entry: the stream id under which it lay first."""

PROGRESS: Final = frozenset({"progress", "current", "total", "message", "wait_reason", "queue_position"})
"""What the next report of a run, or its end, tells anew."""

_SHEDS_LINES: Final = 2.0

Entry = tuple[str, Patch]
"""(root id of the tree of runs, patch)"""


class OutboxUnavailable(TaskcastError):
    """The outbox took nothing; the caller keeps what it wanted to append."""


class Outbox(Protocol):
    """Where run events go: a durable, ordered place that the bridge reads from."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Append all entries in order, or raise `OutboxUnavailable`; a repeat is harmless."""

    def fullness(self) -> float:
        """How full the fullest partition was when last asked, 1.0 being the cap."""

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        """What earlier executions of the run have left; what they save from now on is refused."""

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Keep what the next execution goes on from; False when one has begun that is later than this."""


def partition_of(root_id: str, partitions: int) -> int:
    """The partition of a tree of runs: parents and children stay in one order, under one writer."""
    return crc32(root_id.encode()) % partitions


def stream_key(prefix: str, partition: int) -> str:
    """The Redis key of one partition's stream."""
    return f"{prefix}:outbox:{partition}"


class RedisOutbox:
    """The outbox on Redis Streams.

    Streams are never trimmed: beyond `max_length` callers shed what `shed` names, by `fullness()`.
    """

    _ASK_EVERY: Final = 1.0
    _GOOD_FOR: Final = 3.0
    _SAVE_AGAIN: Final = 1.0

    def __init__(self, settings: OutboxSettings, clock: SharedClock | None = None) -> None:
        self._settings, self._clock = settings, clock
        seconds = settings.timeout.total_seconds()
        self._redis = redis.Redis.from_url(
            settings.redis_url, socket_timeout=seconds, socket_connect_timeout=seconds
        )
        self._own_connection = OwnConnection(self._redis)
        self._checkpoints = RedisCheckpoints(self._redis, settings.prefix, settings.checkpoint_ttl)
        self._streams = [stream_key(settings.prefix, number) for number in range(settings.partitions)]
        self._lengths: dict[str, int] = {}  # of the streams that this process appends to
        self._asked_at = self._save_at = -math.inf
        self._gauge = outbox_gauge()

    def append(self, entries: Sequence[Entry]) -> None:
        """Append without any trimming; once a second the lengths of the streams are asked for on the way."""
        commands = self._commands(entries)
        now = time.monotonic()
        asked = list(self._lengths) if now - self._asked_at >= self._ASK_EVERY else []
        commands += [("XLEN", key) for key in asked]
        if not commands:
            return
        try:
            answers = self._own_connection.send(commands)
        except redis.RedisError as error:
            raise OutboxUnavailable(f"Redis took no run events ({type(error).__name__})") from error
        if asked:
            self._asked_at = now
            self._lengths.update(zip(asked, answers[-len(asked) :], strict=True))
            self._gauge.note(max(self._lengths.values()) / self._settings.max_length)

    def _commands(self, entries: Sequence[Entry]) -> list[Command]:
        ahead = self._clock.ahead() if self._clock is not None else 0.0
        commands: list[Command] = []
        for root_id, patch in entries:
            raw = _raw(earlier(patch, ahead) if ahead else patch)
            if raw is not None:
                key = self._streams[partition_of(root_id, len(self._streams))]
                self._lengths.setdefault(key, 0)
                if (note := self._checkpoints.note(patch)) is not None:
                    commands.append(note)
                commands.append(("XADD", key, "*", ENTRY_FIELD, raw))
        return commands

    def fullness(self) -> float:
        """As last asked; unknown, so 0, a while later, or progress that is shed would never ask again."""
        return self._gauge.value if time.monotonic() - self._asked_at < self._GOOD_FOR else 0.0

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        try:
            return self._checkpoints.take(checkpoint)
        except redis.RedisError as error:
            raise OutboxUnavailable(f"Redis gave no checkpoint ({type(error).__name__})") from error

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        if time.monotonic() < self._save_at:  # a body that saves often does not wait each time
            raise OutboxUnavailable("Redis took no checkpoint a moment ago")
        try:
            return self._checkpoints.save(checkpoint)
        except redis.RedisError as error:
            self._save_at = time.monotonic() + self._SAVE_AGAIN
            raise OutboxUnavailable(f"Redis took no checkpoint ({type(error).__name__})") from error


def earlier(patch: Patch, seconds: float) -> Patch:
    """The same as told by a clock that goes behind by so many seconds."""
    logs = [replace(line, at=line.at - seconds) for line in patch.logs]
    fields = patch.fields
    if isinstance(told := fields.get("started_at"), str):
        at = datetime.fromisoformat(told) - timedelta(seconds=seconds)
        fields = {**fields, "started_at": at.isoformat()}
    return replace(patch, at=patch.at - seconds, fields=fields, logs=logs)


def shed(entries: Iterable[Entry], fullness: float) -> list[Entry]:
    """What an outbox takes that is so full: progress goes from 1.0 on, log lines from 2.0 on.

    States, steps, links and whatever else stays on the row are always left.
    """
    if fullness >= _SHEDS_LINES:
        entries = [(root, replace(patch, logs=[])) for root, patch in entries]
    if fullness >= 1:
        entries = [(root, patch) for root, patch in entries if patch.logs or patch.fields.keys() - PROGRESS]
    return list(entries)


def _raw(patch: Patch) -> bytes | None:
    try:
        return encode(patch)
    except (TypeError, ValueError, RecursionError) as error:
        # Kept, it would hold up everything that comes after it.
        log.error("an event of run %s is no JSON and is left out (%s)", patch.run_id, type(error).__name__)
        return None
