"""Reading the outbox: entries of the held partitions, given back once they are done with.

A partition's group has one consumer name for whoever holds it, so a new holder first reads what the
last one left unacknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.events import BadEntry, Patch, decode
from bridge.outbox import ENTRY_FIELD, stream_key

_GROUP: Final = "bridge"
_CONSUMER: Final = "owner"
_DEAD_LENGTH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a partition's stream, as it lies there."""

    partition: int
    entry_id: str
    raw: bytes


@dataclass(slots=True)
class Batch:
    """What one read brought: entries in each partition's order, the patches in them, and the poison."""

    entries: list[Entry] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    dead: list[tuple[Entry, str]] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)  # by run id

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        try:
            patch = decode(entry.entry_id, entry.raw)
        except BadEntry as error:
            self.dead.append((entry, str(error)))
        else:
            self.patches.append(patch)
            self.partitions[patch.run_id] = entry.partition

    def entries_of(self, run_id: str) -> list[tuple[Entry, Patch]]:
        """The entries of a run with their patches as they were before anything was folded."""
        good = set(self.entries).difference(entry for entry, _ in self.dead)
        decoded = ((entry, decode(entry.entry_id, entry.raw)) for entry in self.entries if entry in good)
        return [(entry, patch) for entry, patch in decoded if patch.run_id == run_id]

    def lag(self) -> float:
        """Seconds that the oldest entry has waited."""
        if not self.entries:
            return 0.0
        oldest = min(int(entry.entry_id.partition("-")[0]) for entry in self.entries)
        return max(0.0, time.time() - oldest / 1000)


class OutboxReader:
    """The bridge's end of the outbox in Redis."""

    def __init__(self, redis: Redis, prefix: str, count: int, block: float = 1.0) -> None:
        self._redis, self._prefix = redis, prefix
        self._count, self._block = count, int(block * 1000)
        self._positions: dict[int, str] = {}

    async def read(self, partitions: Collection[int]) -> Batch:
        """Up to `count` entries of each partition, oldest first; waits about a second for the first one."""
        await self._follow(partitions)
        batch = Batch()
        keys = {stream_key(self._prefix, partition).encode(): partition for partition in sorted(partitions)}
        try:
            answer = await self._command(
                "XREADGROUP", "GROUP", _GROUP, _CONSUMER, "COUNT", self._count, "BLOCK", self._block,
                "STREAMS", *keys, *(self._positions[partition] for partition in keys.values()),
            )  # fmt: skip
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self.rewind()  # somebody emptied Redis; the groups are made anew
            return batch
        for key, entries in _pairs(answer):
            self._take(batch, keys[key], entries)
        return batch

    def rewind(self) -> None:
        """Read again what was read and not acknowledged."""
        self._positions.clear()

    async def acknowledge(self, batch: Batch, unsent: Mapping[int, Sequence[str]]) -> None:
        """Forget the entries of a batch; keep its poison, and the runs whose last snapshot is unsent."""
        pipe = self._redis.pipeline(transaction=True)
        for entry, reason in batch.dead:
            fields: dict[Any, Any] = {
                "reason": reason,
                "partition": entry.partition,
                "entry": entry.entry_id,
                ENTRY_FIELD: entry.raw,
            }
            pipe.xadd(f"{self._prefix}:dead", fields, maxlen=_DEAD_LENGTH, approximate=True)
        for partition, run_ids in unsent.items():
            pipe.sadd(self._unsent_key(partition), *run_ids)
        for partition, ids in _ids_by_partition(batch.entries).items():
            key = stream_key(self._prefix, partition)
            pipe.xack(key, _GROUP, *ids)
            pipe.xdel(key, *ids)
        await pipe.execute()

    async def unsent(self, partition: int, count: int) -> list[str]:
        """Some of the runs of a partition whose last snapshot is not broadcast yet."""
        ids = await self._command("SRANDMEMBER", self._unsent_key(partition), count)
        return [run_id.decode() for run_id in ids or []]

    async def sent(self, partition: int, run_ids: Iterable[str]) -> None:
        """Take runs off the unsent ones."""
        await self._command("SREM", self._unsent_key(partition), *run_ids)

    async def _command(self, *arguments: Any) -> Any:
        # Typed here once: redis-py's own annotations of these change from release to release.
        redis: Any = self._redis
        return await redis.execute_command(*arguments)

    async def _follow(self, partitions: Collection[int]) -> None:
        for partition in set(self._positions).difference(partitions):
            del self._positions[partition]
        for partition in set(partitions).difference(self._positions):
            await self._open(partition)
            self._positions[partition] = "0"

    async def _open(self, partition: int) -> None:
        try:
            key = stream_key(self._prefix, partition)
            await self._redis.xgroup_create(key, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _take(self, batch: Batch, partition: int, entries: list[Any]) -> None:
        if not entries and self._positions[partition] == "0":
            self._positions[partition] = ">"
        for entry_id, fields in entries:
            raw = (fields or {}).get(ENTRY_FIELD.encode(), b"")
            batch.add(Entry(partition, entry_id.decode(), raw))

    def _unsent_key(self, partition: int) -> str:
        return f"{self._prefix}:unsent:{partition}"


def _pairs(answer: Any) -> Iterable[tuple[bytes, list[Any]]]:
    return answer.items() if isinstance(answer, dict) else (answer or [])


def _ids_by_partition(entries: Iterable[Entry]) -> dict[int, list[str]]:
    ids: dict[int, list[str]] = {}
    for entry in entries:
        ids.setdefault(entry.partition, []).append(entry.entry_id)
    return ids
