"""The Lua commands with which operators look at limits and change them, one typed function each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from bridge.limits.scripts import LimitScripts

_PAGE: Final = 200
_AT_ONCE: Final = 16
_ROUNDS: Final = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """The runs that wait in one lane, and the gate where they stand."""

    lane: str
    gate: str
    runs: int
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Known:
    """What Redis knows of limits: `slots|<name>` or `rate|<name>` to a value, and targets that are paused.

    A pause is told by the time that is left of it, None for until it is resumed.
    """

    declared: Mapping[str, str]
    overrides: Mapping[str, str]
    paused: Mapping[str, timedelta | None]


class ControlScripts(LimitScripts):
    """The commands of operators, on the keys of one deployment."""

    def known(self) -> Known:
        """The values and pauses; a few fields for each limit."""
        pipe = self._redis.pipeline(transaction=True)
        for name in ("declared", "overrides", "paused"):
            pipe.hgetall(self.root + name)
        pipe.time()
        declared, overrides, paused, (seconds, micros) = pipe.execute()
        now = seconds * 1000 + micros // 1000
        left = {target: _left(till, now) for target, till in _texts(paused).items()}
        running = {target: time for target, time in left.items() if time is None or time}
        return Known(_texts(declared), _texts(overrides), running)

    def lines(self) -> Iterator[Line]:
        """All lanes with waiting runs, read in pages; a lane may come twice."""
        cursor = "0"
        while True:
            raw = self._call("limits_waiting", cursor, _PAGE)
            for lane, gate, runs, longest in zip(*(iter(raw[1:]),) * 4, strict=True):
                yield Line(lane.decode(), gate.decode(), runs, timedelta(milliseconds=longest))
            cursor = raw[0].decode()
            if cursor == "0":
                return

    def held(self) -> Iterator[str]:
        """The lane of each execution that holds its slots, or that a slot was given to."""
        workers: Any = self._redis.zrange(f"{self.root}workers", 0, -1)
        granted: Any = self._redis.zrange(f"{self.root}grants", 0, -1)
        pipe = self._redis.pipeline(transaction=False)
        for worker in workers:
            pipe.hvals(f"{self.root}held:{worker.decode()}")
        for lanes in pipe.execute():
            yield from (lane.decode() for lane in lanes)
        for member in granted:
            pipe.hget(f"{self.root}run:{member.decode()}", "lane")
        yield from (lane.decode() for lane in pipe.execute() if lane)

    def used(self, gates: Sequence[str]) -> list[int]:
        """What is taken at each gate: slots, or units in a rate's window."""
        return [count for some in _batched(gates, _PAGE) for count in self._call("limits_used", *some)]

    def override(self, field: str, value: str | None) -> bool:
        """Set a value over the declared one, or take it away; returns whether that changed anything."""
        hash_key = f"{self.root}overrides"
        if value is None:
            return bool(self._redis.hdel(hash_key, field))
        before: Any = self._redis.hget(hash_key, field)
        self._redis.hset(hash_key, field, value)
        return before is None or before.decode() != value

    def open_all(self, field: str) -> None:
        """Let runs through wherever they wait for this limit, whatever the key."""
        gates: Any = self._redis.sscan_iter(f"{self.root}gates:{field}", count=_PAGE)
        for some in _batched([gate.decode() for gate in gates], _AT_ONCE):
            self.open(some)

    def open(self, gates: Sequence[str]) -> None:
        """Let all runs through these gates that may go now."""
        for _ in range(_ROUNDS):  # one command moves a bounded number; what is left, workers see to
            if not self._call("limits_open", *gates):
                return


def _batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _texts(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in raw.items()}


def _left(till: str, now: int) -> timedelta | None:
    return None if till == "inf" else timedelta(milliseconds=max(0, int(till) - now))
