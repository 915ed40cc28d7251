"""The checkpoints of unfinished runs in Redis, a hash for each run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final
from weakref import WeakValueDictionary

from redis import Redis

from bridge.checkpoint import Checkpoint, Counts, Kept
from bridge.events import Patch
from bridge.own_connection import Command
from bridge.scripts import milliseconds, source

STAYS: Final = timedelta(hours=1)
"""How long after its end what is kept of a run stays: a worker may have died before it acked the message,
and what comes of that delivery must not start over."""


def checkpoint_key(prefix: str, run_id: str) -> str:
    """The Redis key of what is kept of a run."""
    return f"{prefix}:checkpoint:{run_id}"


class RedisCheckpoints:
    """The commands behind checkpoints; errors are those of the client."""

    def __init__(self, redis: Redis, prefix: str, ttl: timedelta) -> None:
        self._prefix, self._ttl = prefix, milliseconds(ttl)
        self._take, self._save = (
            redis.register_script(source(name)) for name in ("take_checkpoint", "save_checkpoint")
        )
        self._note_told = source("note_told")
        self._known: WeakValueDictionary[str, Checkpoint] = WeakValueDictionary()

    def take(self, checkpoint: Checkpoint) -> Kept:
        answer: Any = self._take(keys=[self._key(checkpoint)], args=[checkpoint.nesting, self._ttl])
        turn, state, told = answer
        self._known[checkpoint.run_id] = checkpoint
        return Kept(turn, state, _read(told))

    def save(self, checkpoint: Checkpoint) -> bool:
        told = _written(checkpoint.told) if checkpoint.told else ""
        args: Any = [checkpoint.nesting, checkpoint.turn, checkpoint.state, told, self._ttl]
        return bool(self._save(keys=[self._key(checkpoint)], args=args) == 1)

    def note(self, patch: Patch) -> Command | None:
        """What comes before a report of progress: how far the bar of a run with a checkpoint will be."""
        checkpoint = self._known.get(patch.run_id)
        if checkpoint is None or checkpoint.state is None or checkpoint.attempt != patch.attempt:
            return None
        counts = patch.fields.get("current"), patch.fields.get("total")
        if counts[0] is None:
            return None
        args = checkpoint.nesting, checkpoint.turn, _written(counts)
        # Not as a registered script, as nobody would bring it to a Redis that has forgotten it.
        return "EVAL", self._note_told, 1, self._key(checkpoint), *args

    def _key(self, checkpoint: Checkpoint) -> str:
        return checkpoint_key(self._prefix, checkpoint.run_id)


def _written(counts: Any) -> str:
    return json.dumps(counts)


def _read(raw: bytes | None) -> Counts | None:
    if not raw:
        return None
    current, total = json.loads(raw)
    return current, total
