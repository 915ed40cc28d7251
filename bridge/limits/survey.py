"""What limits look like to an operator, folded out of what Redis knows. Pure."""

from __future__ import annotations

import heapq
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

from bridge.limits.control_scripts import Known, Line
from bridge.limits.gates import Gate
from bridge.limits.values import Value, understood

NOTHING: Final = timedelta(0)

_CUT: Final = re.compile(r"[A-Za-z0-9_.:@+%-]{60}~[0-9a-f]{32}")
_ORDER: Final = ("start", "task", "slots", "rate")


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key of a limit or rate; `resumes_in` is None where nobody knows."""

    key: str
    used: int
    waiting: int
    oldest_wait: timedelta | None
    paused: bool
    resumes_in: timedelta | None


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit (`kind` "slots"), a rate ("rate"), or a task that is paused ("task").

    `used` counts slots taken, or units started in the window; of a rate that is split by key it is None:
    windows of keys that nobody waits for are not looked at. `waiting` counts the runs that this limit
    holds back, each run at one limit only. `keys` are the fullest; there are `more_keys` that wait,
    execute or are paused. A last kind, "start", stands for a Redis that knew nothing.
    """

    kind: str
    name: str
    declared: Value | None
    in_force: Value | None
    used: int | None
    waiting: int
    oldest_wait: timedelta | None
    paused: bool
    resumes_in: timedelta | None
    is_split: bool = False
    keys: tuple[KeyState, ...] = ()
    more_keys: int = 0


@dataclass(slots=True)
class _Count:
    waiting: int = 0
    longest: timedelta = NOTHING
    held: int = 0

    def add(self, runs: int, longest: timedelta) -> None:
        self.waiting += runs
        self.longest = max(self.longest, longest)


@dataclass(slots=True)
class Tally:
    """Runs that wait and that hold slots, by limit and key; `slots|<name>` to the encoded key."""

    counts: dict[str, dict[str, _Count]] = field(default_factory=dict)

    @classmethod
    def of(cls, limits: Iterable[str], known: Known, lines: Iterable[Line], held: Iterable[str]) -> Tally:
        """Count what was read."""
        tally = cls({limit: {} for limit in limits})
        for line in {line.lane: line for line in lines}.values():
            tally.at(_cause(line.lane, line.gate)).add(line.runs, line.longest)
        for lane in held:
            for gate in lane.split(" ")[1:]:
                tally.at(gate).held += 1
        tally._pauses(known.paused)
        return tally

    def at(self, gate: str) -> _Count:
        """The count at a gate."""
        name, _, key = gate.rpartition("|")
        return self.counts.setdefault(name, {}).setdefault(key, _Count())

    def fullest(self, limit: str, most: int, paused: Mapping[str, timedelta | None]) -> list[str]:
        """The keys of a limit that are worth a look, encoded."""
        keys = self.counts[limit]
        _, name = limit.split("|")

        def order(key: str) -> tuple[int, bool, int, str]:
            count = keys[key]
            return (-count.waiting, f"limit|{name}|{key}" not in paused, -count.held, key)

        return heapq.nsmallest(most, (key for key in keys if key), key=order)

    def is_split(self, limit: str) -> bool:
        """Whether any key of the limit is in use."""
        return any(self.counts[limit])

    def held(self, limit: str) -> int:
        """How many hold a slot of it, whatever the key."""
        return sum(count.held for count in self.counts[limit].values())

    def _pauses(self, paused: Mapping[str, timedelta | None]) -> None:
        """What is paused is shown, be it in use or not."""
        for target in paused:
            kind, name, key = target.split("|")
            if kind == "task":
                self.at(target)
                continue
            limits = [limit for limit in (f"slots|{name}", f"rate|{name}") if limit in self.counts]
            for limit in limits or [f"slots|{name}"]:
                self.at(f"{limit}|{key}")


def states(
    known: Known,
    declared: Mapping[str, str],
    tally: Tally,
    used: Mapping[str, int],
    split: Container[str],
    shown: Mapping[str, list[str]],
) -> Iterator[LimitState]:
    """The state of each limit, by name; `used` tells it of gates, `shown` the keys to tell of."""
    for limit in sorted(tally.counts, key=_place):
        counts = tally.counts[limit]
        keys = tuple(_key_state(limit, key, counts[key], known, used) for key in shown[limit])
        yield _state(limit, known, declared.get(limit), counts, used, limit in split, keys)


def _state(
    limit: str,
    known: Known,
    declared: str | None,
    counts: Mapping[str, _Count],
    used: Mapping[str, int],
    is_split: bool,
    keys: tuple[KeyState, ...],
) -> LimitState:
    gate = Gate.read(f"{limit}|")
    target = f"{limit}|" if gate.kind == "task" else f"limit|{limit.split('|')[1]}|"
    return LimitState(
        kind=gate.kind,
        name=gate.name,
        declared=understood(declared),
        in_force=understood(known.overrides.get(limit, declared)),
        used=used.get(f"{limit}|"),
        waiting=sum(count.waiting for count in counts.values()),
        oldest_wait=max((count.longest for count in counts.values()), default=NOTHING) or None,
        paused=target in known.paused,
        resumes_in=known.paused.get(target),
        is_split=is_split,
        keys=keys,
        more_keys=sum(map(bool, counts)) - len(keys),
    )


def _place(limit: str) -> tuple[str, int]:
    kind, name = limit.split("|")
    return name, _ORDER.index(kind)


def _key_state(limit: str, key: str, count: _Count, known: Known, used: Mapping[str, int]) -> KeyState:
    target = f"limit|{limit.split('|')[1]}|{key}"
    return KeyState(
        key=shown_key(key),
        used=used.get(f"{limit}|{key}", count.held),
        waiting=count.waiting,
        oldest_wait=count.longest or None,
        paused=target in known.paused,
        resumes_in=known.paused.get(target),
    )


def shown_key(encoded: str) -> str:
    """A key for people; a long one as it is kept, by its beginning and its hash."""
    return encoded if is_cut(encoded) else unquote(encoded, errors="surrogatepass")


def is_cut(key: str) -> bool:
    """Whether this stands for a key that was too long to keep."""
    return _CUT.fullmatch(key) is not None


def _cause(lane: str, gate: str) -> str:
    """The gate of its own that a lane waits at, where a pause of a limit holds it back."""
    kind, name, _ = gate.split("|")
    if kind != "limit":
        return gate
    own = (part for part in lane.split(" ")[1:] if part.split("|")[1] == name)
    return next(own, f"slots|{name}|")
