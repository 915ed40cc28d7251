"""A plain model of the commands behind limits: sorted lists, dicts, and a scan wherever Redis keeps an index.

It decides as the commands promise to: lanes in the order of (priority of the head, turn), the first whose
gates are all open goes. What it knows beyond that is where a lane stands: at the first gate
that was found closed, which is what keeps light runs from overtaking a heavy one at a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

START = "start||"
NOBODY = ""
RETOLD = 30_000

Score = tuple[int, float]


@dataclass
class Run:
    """What is known of one attempt of a run."""

    state: str
    lane: str = ""
    units: tuple[int, ...] = ()
    priority: int = 0
    number: int = 0
    message: str | None = None
    queue: str = ""
    holder: str = ""
    worker: str = NOBODY
    why: str = ""
    lost_by: str | None = None


@dataclass
class Told:
    """An answer to `admit`; `running` are those of which any may be the victim."""

    word: str
    holder: str = ""
    gate: str = ""
    position: int = 0
    waiting: list[str] = field(default_factory=list)
    running: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Model:
    """All that the commands know; `now` is set from outside."""

    most_moves: int = 64
    now: int = 0
    swept_at: int = 0
    ready_at: int | None = None
    lease: int = 0
    grant_time: int = 0
    numbers: int = 0
    declared: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    slots: dict[str, dict[str, int]] = field(default_factory=dict)
    used: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, tuple[int, int]] = field(default_factory=dict)
    grants: dict[str, int] = field(default_factory=dict)
    ending: dict[str, int] = field(default_factory=dict)
    outgoing: list[str] = field(default_factory=list)
    parked: dict[str, str] = field(default_factory=dict)
    pushed: list[tuple[str, str]] = field(default_factory=list)
    is_queued: Callable[[str, str], bool] = lambda queue, message: False

    # What is open

    def value(self, gate: str) -> str:
        kind, name, _ = gate.split("|")
        return self.overrides.get(f"{kind}|{name}") or self.declared.get(f"{kind}|{name}") or "0:1000"

    def used_units(self, gate: str) -> int:
        """The units that started within the window; after the clock was set back it starts anew."""
        _, per, granule = rate(self.value(gate))
        log = self.used.get(gate, [])
        if log and log[-1][0] > self.now + granule:
            log = [(self.now - self.now % granule, sum(units for _, units in log))]
        self.used[gate] = [(at, units) for at, units in log if at + granule + per > self.now]
        return sum(units for _, units in self.used[gate])

    def is_open(self, gate: str, units: int) -> bool:
        kind = gate.split("|")[0]
        if kind == "slots":
            return len(self.slots.get(gate, {})) < int(self.value(gate).split(":")[0])
        if kind == "rate":
            count, used = rate(self.value(gate))[0], self.used_units(gate)
            return used + units <= count or (used == 0 and 0 < count < units)
        if kind == "start":
            return self.now >= (self.ready_at or 0)
        return not self.paused.get(gate, 0) > self.now

    def score(self, lane: str) -> Score:
        return self.runs[self.lines[lane][0]].priority, self.turns[lane]

    def closing(self, lane: str, units: Sequence[int], score: Score) -> str | None:
        """The first gate that holds the lane back."""
        if not self.is_open(START, 0):
            return START
        for target in targets(lane):
            if self.paused.get(target, 0) > self.now:
                return target
        for gate, one in zip(gates_of(lane), units, strict=True):
            stood_before = any(
                where == gate and other != lane and self.score(other) < score
                for other, where in self.at.items()
            )
            if not self.is_open(gate, one) or stood_before:
                return gate
        return None

    # Who is next

    def wake(self, gates: Collection[str] | None, here: tuple[str, str] | None = None) -> str:
        """Let runs through these gates, or through all; returns the holder of the run that is here."""
        holder = ""
        for _ in range(self.most_moves):
            lane = self.next_lane(gates)
            if lane is None:
                break
            head = self.runs[self.lines[lane][0]]
            if closed := self.closing(lane, head.units, self.score(lane)):
                self.at[lane] = closed
            else:
                holder = self.grant(lane, here) or holder
        return holder

    def next_lane(self, gates: Collection[str] | None) -> str | None:
        seen = set()
        for lane in sorted(self.at, key=self.score):
            gate = self.at[lane]
            if gate in seen or (gates is not None and gate not in gates):
                continue
            seen.add(gate)
            units = dict(zip(gates_of(lane), self.runs[self.lines[lane][0]].units, strict=True))
            if self.is_open(gate, units.get(gate, 0)):
                return lane
        return None

    def grant(self, lane: str, here: tuple[str, str] | None) -> str:
        member = self.lines[lane].pop(0)
        self.not_parked(member)
        run = self.runs[member]
        run.holder = self.take(member, lane, run.units)
        self.ending.pop(member, None)
        self.turns[lane] = self.number()
        if here and here[0] == member:
            self.hold(member, run.holder, lane, here[1])
        else:
            run.state = "granted"
            self.grants[member] = self.now + self.grant_time
            if run.queue:
                self.pushed.append((run.queue, run.message or ""))
            else:
                self.outgoing.append(member)
        self.settle(lane, self.at[lane])
        return run.holder if run.state == "held" else ""

    def settle(self, lane: str, fallback: str) -> None:
        """Put the lane where its head has to wait."""
        self.at.pop(lane, None)
        if self.lines[lane]:
            head = self.runs[self.lines[lane][0]]
            self.at[lane] = self.closing(lane, head.units, self.score(lane)) or fallback
        else:
            del self.lines[lane], self.turns[lane]

    def line_up(self, member: str) -> None:
        run = self.runs[member]
        run.state, run.holder, run.worker = "waiting", "", NOBODY
        line = self.lines.setdefault(run.lane, [])
        line.append(member)
        line.sort(key=lambda one: (self.runs[one].priority, self.runs[one].number))
        self.parked[task_of(member)] = member
        if run.lane not in self.turns:
            self.turns[run.lane] = self.number()
        self.settle(run.lane, gates_of(run.lane)[0])

    def leave_line(self, member: str) -> None:
        lane = self.runs[member].lane
        self.lines[lane].remove(member)
        self.not_parked(member)
        self.ending.pop(member, None)
        self.settle(lane, gates_of(lane)[0])

    def not_parked(self, member: str) -> None:
        if self.parked.get(task_of(member)) == member:
            del self.parked[task_of(member)]

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # Who holds

    def take(self, member: str, lane: str, units: Iterable[int]) -> str:
        holder = f"{member}#{self.number()}"
        for gate, one in zip(gates_of(lane), units, strict=True):
            if gate.startswith("slots|"):
                self.slots.setdefault(gate, {})[holder] = self.now
            elif one:
                granule = rate(self.value(gate))[2]
                log = self.used.setdefault(gate, [])
                log.append((max(self.now - self.now % granule, log[-1][0] if log else 0), one))
        return holder

    def give_back(self, holder: str, lane: str) -> None:
        for gate in slots_of(lane):
            self.slots.get(gate, {}).pop(holder, None)

    def hold(self, member: str, holder: str, lane: str, worker: str) -> None:
        run = self.runs[member]
        run.state, run.holder, run.worker, run.lane, run.message = "held", holder, worker, lane, None
        self.held.setdefault(worker, {})[holder] = lane
        self.workers.setdefault(worker, self.now + self.lease // 2)

    def set_back(self, member: str, state: str) -> None:
        run = self.runs[member]
        if state != "returned":
            run.lost_by = run.holder
        run.holder, run.worker = "", NOBODY
        if run.message is None:
            run.state = state
        else:
            if member in self.outgoing:
                self.outgoing.remove(member)
            self.line_up(member)


def targets(lane: str) -> Iterable[str]:
    """What can be paused of a lane, in the order in which it is looked at."""
    task, *gates = lane.split()
    yield task
    for gate in gates:
        _, name, key = gate.split("|")
        yield f"limit|{name}|"
        if key:
            yield f"limit|{name}|{key}"


def task_of(member: str) -> str:
    return member.rsplit(":", 2)[0]


def split(lane: str) -> list[str]:
    return lane.split()


def gates_of(lane: str) -> list[str]:
    return lane.split()[1:]


def slots_of(lane: str) -> list[str]:
    return [gate for gate in gates_of(lane) if gate.startswith("slots|")]


def rate(value: str) -> tuple[int, int, int]:
    """Count, window and granule of a rate."""
    count, per = map(int, value.split(":"))
    return count, per, max(1, math.floor(per / 1000))
