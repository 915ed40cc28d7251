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
from redis.exceptions import OutOfMemoryError, ResponseError

from bridge.checkpoints import STAYS, checkpoint_key
from bridge.events import BadEntry, Patch, decode, version_of
from bridge.outbox import ENTRY_FIELD, FIRST_FIELD, stream_key
from bridge.publisher.dead import DEAD_LENGTH, burial, dead_key
from bridge.scripts import SettleScript

_GROUP: Final = "bridge"
_CONSUMER: Final = "owner"
_STALE: Final = 2_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a partition's stream, as it lies there; a replayed one had another id at first."""

    partition: int
    entry_id: str
    raw: bytes
    first: str | None = None

    def decoded(self) -> Patch:
        """The patch in it.

        Raises:
            BadEntry
        """
        return decode(self.entry_id, self.raw, self.first)

    @property
    def first_id(self) -> str:
        """The id under which it lay first, as far as that can be true."""
        try:
            known = self.first is not None and version_of(self.first) <= version_of(self.entry_id)
        except BadEntry:
            known = False
        return self.first if known and self.first is not None else self.entry_id


@dataclass(slots=True)
class Batch:
    """What one read brought: entries in each partition's order, the patches in them, and the poison."""

    entries: list[Entry] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    dead: list[tuple[Entry, str]] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)  # by run id
    read_at: float = field(default_factory=time.monotonic)
    _of_run: dict[str, list[Entry]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        try:
            patch = entry.decoded()
        except BadEntry as error:
            self.dead.append((entry, str(error)))
            return
        self.patches.append(patch)
        self.partitions[patch.run_id] = entry.partition
        self._of_run.setdefault(patch.run_id, []).append(entry)

    def ordered(self) -> list[Patch]:
        """The patches in the order of what they tell of; those that are replayed come before later ones."""
        is_mixed = any(patch.replayed for patch in self.patches)
        return sorted(self.patches, key=_version) if is_mixed else self.patches

    def entries_of(self, run_id: str) -> list[tuple[Entry, Patch]]:
        """The entries of a run in order, with their patches as they were before anything was folded."""
        decoded = [(entry, entry.decoded()) for entry in self._of_run.get(run_id, [])]
        return sorted(decoded, key=lambda pair: pair[1].version)

    def lag(self) -> float:
        """Seconds that the oldest entry has waited."""
        if not self.entries:
            return 0.0
        oldest = min(int(entry.entry_id.partition("-")[0]) for entry in self.entries)
        return max(0.0, time.time() - oldest / 1000)


class OutboxReader:
    """The bridge's end of the outbox in Redis."""

    def __init__(self, redis: Redis, prefix: str, count: int, block: float = 1.0, replica: str = "") -> None:
        self._redis, self._prefix, self._replica = redis, prefix, replica
        self._count, self._block = count, int(block * 1000)
        self._positions: dict[int, str] = {}
        self._settle = SettleScript(redis, _GROUP, dead_key(prefix), DEAD_LENGTH).settle

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

    async def behind(self, batch: Batch) -> frozenset[int]:
        """The partitions where newer entries than those of a batch have lain for long."""
        ids = _ids_by_partition(batch.entries)
        took_long = time.monotonic() - batch.read_at > _STALE / 1000
        last = {each: read[-1] for each, read in ids.items() if took_long or len(read) >= self._count}
        if not last:
            return frozenset()
        pipe = self._redis.pipeline(transaction=False)
        for partition in last:
            pipe.xrevrange(stream_key(self._prefix, partition), count=1)
        newest: list[Any] = await pipe.execute()
        # Both times are of the Redis that made the ids.
        ages = {
            partition: _milliseconds(found[0][0].decode()) - _milliseconds(last[partition])
            for partition, found in zip(last, newest, strict=True)
            if found
        }
        return frozenset(partition for partition, age in ages.items() if age > _STALE)

    def rewind(self, partitions: Collection[int] | None = None) -> None:
        """Read again what was read and not acknowledged, by whomever; of these partitions, or of all."""
        for partition in set(self._positions if partitions is None else partitions):
            self._positions.pop(partition, None)

    async def acknowledge(
        self, batch: Batch, unsent: Mapping[int, Sequence[str]], ended: Iterable[str] = ()
    ) -> None:
        """Forget the entries of a batch; keep its poison, and the runs whose last snapshot is unsent.

        The checkpoints of runs that have `ended` stay a while only.
        """
        dead: dict[int, list[dict[str, Any]]] = {}
        for entry, reason in sorted(batch.dead, key=_place):
            kept = burial(entry.partition, entry.first_id, entry.raw, reason, self._replica)
            dead.setdefault(entry.partition, []).append(kept)
        ids = _ids_by_partition(batch.entries)
        pipe = self._redis.pipeline(transaction=False)
        for partition in ids.keys() | unsent.keys():
            await self._settle(
                pipe,
                stream_key(self._prefix, partition),
                self._unsent_key(partition),
                ids.get(partition, ()),
                unsent.get(partition, ()),
                dead.get(partition, ()),
            )
        for run_id in ended:
            pipe.pexpire(checkpoint_key(self._prefix, run_id), STAYS)
        await pipe.execute()

    async def gauge(self, partitions: int) -> tuple[list[int], int]:
        """How many entries lie in each partition's stream, and among the dead."""
        pipe = self._redis.pipeline(transaction=False)
        for partition in range(partitions):
            pipe.xlen(stream_key(self._prefix, partition))
        pipe.xlen(dead_key(self._prefix))
        *lengths, dead = await pipe.execute()
        return lengths, dead

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
        key = stream_key(self._prefix, partition)
        try:
            await self._redis.xgroup_create(key, _GROUP, id="0", mkstream=True)
        except OutOfMemoryError:  # said before Redis looks whether the group is there
            groups: Any = await self._command("XINFO", "GROUPS", key)
            if not groups:
                raise
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _take(self, batch: Batch, partition: int, entries: list[Any]) -> None:
        if not entries and self._positions[partition] == "0":
            self._positions[partition] = ">"
        for entry_id, fields in entries:
            raw, first = _parts(fields or {})
            batch.add(Entry(partition, entry_id.decode(), raw, first))

    def _unsent_key(self, partition: int) -> str:
        return f"{self._prefix}:unsent:{partition}"


def _parts(fields: Mapping[bytes, bytes]) -> tuple[bytes, str | None]:
    """An entry's bytes, and the id it had first if it is replayed."""
    raw = fields.get(ENTRY_FIELD.encode())
    if raw is None:  # nobody of ours wrote it: all of it is what is kept
        raw = b" ".join(name + b"=" + value for name, value in fields.items())
    first = fields.get(FIRST_FIELD.encode())
    return raw, None if first is None else first.decode("utf-8", "replace")


def _version(patch: Patch) -> int:
    return patch.version


def _place(dead: tuple[Entry, str]) -> tuple[int, ...]:
    """What was appended first is first among the dead."""
    return tuple(int(number) for number in dead[0].entry_id.split("-"))


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _pairs(answer: Any) -> Iterable[tuple[bytes, list[Any]]]:
    return answer.items() if isinstance(answer, dict) else (answer or [])


def _ids_by_partition(entries: Iterable[Entry]) -> dict[int, list[str]]:
    ids: dict[int, list[str]] = {}
    for entry in entries:
        ids.setdefault(entry.partition, []).append(entry.entry_id)
    return ids
