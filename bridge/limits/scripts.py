"""The Lua commands behind limits, one typed function each; nobody else sees KEYS and ARGV.

A run waits in a *lane* with those that need the same gates; see `bridge/lua/limits_lanes.lua` for how
lanes take turns, and `bridge.limits.gates` for what a lane's text means.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from redis import Redis

from bridge.limits.answers import Answer, Ask, Ended, Moved, Parcel, Swept, Unacked, Victim
from bridge.own_connection import OwnConnection
from bridge.scripts import milliseconds, source, text

TOMBSTONE: Final = timedelta(minutes=1)
"""A second delivery is recognised for as long as the run took, and this much longer."""

PACER_STAYS: Final = timedelta(seconds=3)

LASTING_KEYS: Final = {
    "state": "the epoch tells parked messages from those of an emptied Redis",
    "declared": "what the code declares; a field for each limit",
    "overrides": "what operators have set, durably",
    "paused": "what operators have closed, durably; pauses with a time are removed after it",
    "seq": "numbers that never come twice, for turns and holders",
    "workers": "leases; a worker is removed once it is dead",
    "unacked": "where workers keep their unacked messages; removed once they have been given back",
}
"""The keys without a time to live that stay when nothing runs or waits, and why."""


class LimitScripts:
    """The commands, on the keys of one deployment."""

    def __init__(self, redis: Redis, prefix: str, load: Callable[[str], str] = source) -> None:
        self._redis, self._load = redis, load
        self.root = f"{prefix}:limits:"
        self._registered: dict[str, Any] = {}
        self._own_connection = OwnConnection(redis)

    def admit(self, ask: Ask, parcel: Parcel | None = None) -> Answer:
        """Take the slots, or park the parcel until they are free; without one only tell."""
        raw = self._own_connection.call(self._script("limits_admit"), (
            self.root, ask.member, ask.worker, ask.lane, ",".join(map(str, ask.units)), ask.priority,
            ask.mode, ask.parked_under, ask.meta, "1" if ask.early else "",
            *(_parcel(parcel) if parcel is not None else ()),
        ))  # fmt: skip
        word, rest = text(raw[0]), raw[1:]
        if word == "run":
            return Answer(word, holder=text(rest[0]), deaths=int(rest[1]))
        if word == "waiting":
            victims = tuple(Victim(*text(each).split()[1:]) for each in rest[2:])
            return Answer(word, position=int(rest[0]), gate=text(rest[1]), victims=victims)
        return Answer(word, gate=text(rest[0]) if rest else "")

    def lease(self, ask: Ask, holder: str, lease: timedelta) -> bool:
        """Lease an attempt that no limit holds back; False when `admit` has to decide."""
        arguments = (
            self.root, ask.member, ask.worker, ask.lane, holder, milliseconds(lease) // 2, ask.meta,
            "1" if ask.early else "",
        )  # fmt: skip
        return bool(self._own_connection.call(self._script("limits_lease"), arguments))

    def end(self, worker: str, holders: Sequence[str], tombstone: timedelta = TOMBSTONE) -> None:
        """End executions that hold no slots, and whose messages will not come back on purpose."""
        self._call("limits_end", worker, milliseconds(tombstone), *holders)

    def release(
        self,
        worker: str,
        holder: str,
        lane: str,
        tombstone: timedelta = TOMBSTONE,
        unacked: Unacked | None = None,
        *,
        is_over: bool = True,
    ) -> int:
        """Free an execution's slots, and ack its message; returns how many granted runs are unpublished.

        What is over has ended even if it was taken for lost meanwhile: what comes back of it starts nothing.
        """
        over = "1" if is_over else ""
        arguments: tuple[Any, ...] = (self.root, worker, holder, lane, milliseconds(tombstone), over)
        if unacked is not None:
            arguments += (unacked.hash, unacked.index, unacked.tag)
        return int(self._own_connection.call(self._script("limits_release"), arguments))

    def ack(self, unacked: Unacked) -> None:
        """Ack a message whose broker is this Redis; the broker passes over a tag without a message."""
        hash_key, index, tag = unacked.hash, unacked.index, unacked.tag
        self._own_connection.send([("HDEL", hash_key, tag), ("ZREM", index, tag)])

    def disown(self, holder: str, died: bool = False) -> bool:
        """Note that the message goes back to its queue before the slots are free."""
        return bool(self._call("limits_disown", holder, "1" if died else ""))

    def spare(self, member: str, parcel: Parcel) -> bool:
        """Keep a second copy of a message whose run executes; False when it executes no longer."""
        message, queue, meta, _, *unacked = _parcel(parcel)
        return bool(self._call("limits_spare", member, message, queue, meta, *unacked))

    def restore(self, ask: Ask, holder: str) -> bool:
        """Take slots again for an execution that lives; returns whether its run had been taken for lost."""
        return bool(self._call(
            "limits_restore", ask.worker, holder, ask.lane, ",".join(map(str, ask.units)), ask.priority,
            ask.meta, "1" if ask.early else "",
        ))  # fmt: skip

    def sweep(self, worker: str, lease: timedelta) -> Swept:
        """See to dead workers, lapsed grants, and whatever is due."""
        pacer, next_in, outgoing, buried, freed, *rest = self._call(
            "limits_sweep", worker, milliseconds(lease), milliseconds(PACER_STAYS)
        )
        deaths, rest = rest[0], rest[1:]
        died, rest = tuple(map(text, rest[:deaths])), rest[deaths:]
        ended = tuple(
            Ended(text(member), text(why), message or b"", text(meta or b""))
            for member, why, message, meta in zip(*[iter(rest)] * 4, strict=True)
        )
        return Swept(pacer == 1, timedelta(milliseconds=next_in), outgoing, buried, freed, died, ended)

    def withdraw(self, task_id: str, why: str) -> Ended | None:
        """Take a waiting run out of its line, by its quoted task id, to be ended, then forgotten."""
        raw = self._call("limits_withdraw", task_id, why)
        return Ended(text(raw[0]), why, raw[1]) if raw else None

    def forget(self, member: str, tombstone: timedelta = TOMBSTONE) -> int:
        """Drop a run that was ended without having started; returns as `release` does."""
        return int(self._call("limits_forget", member, milliseconds(tombstone)))

    def declare(
        self, values: Mapping[str, str], lease: timedelta, grant: timedelta, nothing_runs: bool = False
    ) -> tuple[str, timedelta]:
        """Tell what limits the code declares; returns the epoch and how long nobody is let in yet."""
        pairs = [part for pair in values.items() for part in pair]
        epoch, wait = self._call(
            "limits_declare", secrets.token_hex(8), milliseconds(lease), milliseconds(grant),
            "1" if nothing_runs else "", *pairs,
        )  # fmt: skip
        return text(epoch), timedelta(milliseconds=wait)

    def next_outgoing(self) -> tuple[str, bytes] | None:
        """Claim a granted run to publish: (member, message). What is not sent in time lines up again."""
        raw: Any = self._redis.lpop(f"{self.root}outgoing")
        if raw is None:
            return None
        member = text(raw)
        message: Any = self._redis.hget(f"{self.root}run:{member}", "message")
        return (member, message) if message else self.next_outgoing()

    def sent(self, member: str) -> None:
        """Note that a granted run's message is at the broker."""
        self._call("limits_sent", member)

    def holders(self, worker: str) -> dict[str, str]:
        """The holders of a worker, as Redis knows them, each with its lane."""
        held = self._redis.hgetall(f"{self.root}held:{worker}")
        return {text(holder): text(lane) for holder, lane in held.items()}

    def executing(self) -> list[str]:
        """The holders of all workers that live, or are not known to be dead."""
        pipe = self._redis.pipeline(transaction=False)
        workers: Any = self._redis.zrange(f"{self.root}workers", 0, -1)
        for worker in workers:
            pipe.hkeys(f"{self.root}held:{text(worker)}")
        return [text(holder) for holders in pipe.execute() for holder in holders]

    def epoch(self) -> str:
        """What tells this memory of the limits from any before it; empty when there is none."""
        raw: Any = self._redis.hget(f"{self.root}state", "epoch")
        return text(raw or "")

    def lanes(self, cursor: int, count: int) -> tuple[int, dict[str, str]]:
        """About `count` of the lanes with waiting runs, and the gate where each stands; 0 is both ends."""
        raw: Any = self._redis.hscan(f"{self.root}at", cursor, count=count)
        return int(raw[0]), {text(lane): text(gate) for lane, gate in raw[1].items()}

    def length(self, lane: str) -> int:
        """How many runs wait in a lane."""
        found: Any = self._redis.zcard(f"{self.root}line:{lane}")
        return int(found)

    def pause(self, target: str, time: timedelta | None = None) -> bool:
        """Close a task, a limit or a key; returns whether that is new, or longer than before."""
        return bool(self._call("limits_pause", target, "inf" if time is None else milliseconds(time)))

    def resume(self, target: str) -> bool:
        """End a pause; returns whether there was one."""
        return bool(self._call("limits_resume", target))

    def wake(self, gates: Sequence[str]) -> int:
        """Let runs through gates that may have opened; returns as `release` does."""
        return int(self._call("limits_wake", *gates)) if gates else 0

    def moved(self, lane: str, first: int, last: int) -> list[Moved]:
        """The waiting runs of a stretch of a line whose place or reason is to be told anew."""
        raw = self._call("limits_positions", lane, first, last)
        return [
            Moved(text(raw[i]), int(raw[i + 1]), text(raw[i + 2]), raw[i + 3] == 1)
            for i in range(0, len(raw), 4)
        ]

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._script(name)(keys=[self.root], args=arguments)

    def _script(self, name: str) -> Any:
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._redis.register_script(self._load(name))
        return script


def _parcel(parcel: Parcel) -> tuple[Any, ...]:
    unacked = parcel.unacked or Unacked("", "", "")
    return (
        parcel.message, parcel.queue, parcel.meta, parcel.expires_at,
        unacked.hash, unacked.index, unacked.tag,
    )  # fmt: skip
