"""What has to hold at any time, judged by Redis' own data; none of it asks the plain model."""

from __future__ import annotations

import math

from tests.integration.limits.commands import member_of
from tests.integration.limits.dump import Dump
from tests.integration.limits.model import START, gates_of, rate, slots_of, targets
from tests.integration.limits.world import QUEUES, World


class Invariants:
    """Checks after each step; remembers what the step before looked like."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.started: dict[str, list[tuple[int, int]]] = {}
        self.passed: dict[tuple[str, str], set[str]] = {}
        self.before: Dump | None = None

    def check(self, dump: Dump, *, restoring: bool, clock_went_back: bool) -> None:
        """Everything, after one step."""
        now = self.world.now
        if clock_went_back:
            self.started.clear()
        data = Data(dump, now)
        new = data.holders() - Data(self.before, now).holders() if self.before else set()
        if not restoring:
            self._never_above(data, new)
            self._nobody_during_grace(data, new)
            self._rates(data, new)
            self._turns(data)
        data.no_slot_is_lost()
        data.living_hold_their_slots(self.world)
        data.first_come_first_served()
        data.stand_at_one_gate()
        if not clock_went_back:
            data.nobody_is_forgotten()
        self._no_run_is_lost(dump)
        self.before = dump

    def _never_above(self, data: Data, new: set[tuple[str, str]]) -> None:
        for gate, holder in ((gate, holder) for gate, holder in new if gate.startswith("slots|")):
            used, most = len(data.dump.all("slots:")[gate]), int(data.value(gate))
            assert used <= most, f"{holder} was let in at {gate}: {used} of {most}"

    def _nobody_during_grace(self, data: Data, new: set[tuple[str, str]]) -> None:
        assert not new or data.is_open(START, 0), f"{new} were let in while Redis knew nothing"

    def _rates(self, data: Data, new: set[tuple[str, str]]) -> None:
        """In any window of `per` no more than `count` units start, or a single run that has more of them."""
        for holder in {holder for _, holder in new}:
            spec = self.world.specs[member_of(holder)]
            for gate, units in zip(gates_of(spec.lane), spec.units, strict=True):
                if gate.startswith("rate|"):
                    self._start(data, gate, units)

    def _start(self, data: Data, gate: str, units: int) -> None:
        count, per, _ = rate(data.value(gate))
        log = [(at, n) for at, n in self.started.get(gate, []) if at > data.now - per]
        self.started[gate] = [*log, (data.now, units)]
        used = sum(n for _, n in log) + units
        assert used <= count or not sum(n for _, n in log), f"{used} units of {gate} within {per} ms"

    def _turns(self, data: Data) -> None:
        """Between two turns of a lane at a gate, each of its rank that stood there all along has one."""
        if self.before is None:
            return
        old = Data(self.before, data.now)
        turned = {lane for lane, turn in data.turns.items() if old.turns.get(lane, turn) != turn}
        turned |= set(old.turns) - set(data.turns)
        for (lane, gate), others in self.passed.items():
            stayed = {
                one for one in others
                if data.at.get(one) == gate == old.at.get(one) and one not in turned
                and data.rank(one) == old.rank(one)
            }  # fmt: skip
            is_served = lane in turned and old.at.get(lane) == gate and lane in data.turns
            if is_served and next(iter(old.lines[lane])) in data.lines[lane]:
                continue  # another run came back to its head, and went
            if old.dump.get("due").get(gate, math.inf) <= data.now:
                continue  # the others are left over for the next sweep
            if is_served and stayed:
                assert old.rank(lane) < min(map(data.rank, stayed)), f"{lane} overtook {stayed} at {gate}"
            others.intersection_update(stayed)
        for lane in turned & set(data.turns):
            gate = old.at.get(lane)
            if gate is not None:
                self.passed[lane, gate] = {
                    one for one, where in data.at.items()
                    if where == gate and one not in turned and one != lane and old.at.get(one) == gate
                    and data.rank(one) == old.rank(lane)
                }  # fmt: skip

    def _no_run_is_lost(self, dump: Dump) -> None:
        world = self.world
        messages = [*(m for queue in QUEUES for m in dump.plain(queue)), *dump.plain("unacked").values()]
        messages += world.rabbit
        there = {world.member_in(message) for message in messages}
        there |= {member for member, run in dump.all("run:").items() if run.get("message")}
        there |= {one.spec.member for worker in world.workers.values() for one in worker.runs.values()
                  if one.spec.queue == "rabbit"}  # fmt: skip
        lost = set(world.specs) - world.ended - world.excused - there
        assert not lost, f"no message is left of {lost}"


class Data:
    """Redis' data, read by the rules."""

    def __init__(self, dump: Dump, now: int) -> None:
        self.dump, self.now = dump, now
        self.at: dict[str, str] = dump.get("at")
        self.turns: dict[str, str] = dump.get("turns")
        self.lines: dict[str, dict[str, float]] = dump.all("line:")
        self.runs: dict[str, dict[str, str]] = dump.all("run:")

    def holders(self) -> set[tuple[str, str]]:
        return {(gate, holder) for gate, held in self.dump.all("slots:").items() for holder in held} | {
            (rates, run["holder"])
            for run in self.runs.values() if run.get("holder")
            for rates in gates_of(run["lane"]) if rates.startswith("rate|") and not slots_of(run["lane"])
        }  # fmt: skip

    def value(self, gate: str) -> str:
        field = gate.rpartition("|")[0]
        found: str = self.dump.get("overrides").get(field) or self.dump.get("declared")[field]
        return found

    def head(self, lane: str) -> dict[str, str]:
        return self.runs[next(iter(self.lines[lane]))]

    def rank(self, lane: str) -> int:
        return int(self.head(lane)["priority"])

    def score(self, lane: str) -> tuple[int, int]:
        return self.rank(lane), int(self.turns[lane])

    def used(self, gate: str) -> int:
        _, per, granule = rate(self.value(gate))
        log = [tuple(map(int, entry.split(":"))) for entry in self.dump.get(f"rate:{gate}", [])]
        return sum(units for at, units in log if at + granule + per > self.now)

    def is_open(self, gate: str, units: int) -> bool:
        if gate == START:
            return self.now >= int(self.dump.get("state").get("ready_at", 0))
        if gate.startswith("slots|"):
            return len(self.dump.get(f"slots:{gate}")) < int(self.value(gate))
        if gate.startswith("rate|"):
            count, used = rate(self.value(gate))[0], self.used(gate)
            return used + units <= count or (used == 0 and units > count)
        return not float(self.dump.get("paused").get(gate, 0)) > self.now

    def could_go(self, lane: str) -> bool:
        units = dict(zip(gates_of(lane), map(int, self.head(lane)["units"].split(",")), strict=True))
        if not self.is_open(START, 0) or not all(self.is_open(target, 0) for target in targets(lane)):
            return False
        return all(
            self.is_open(gate, units[gate])
            and not any(
                where == gate and self.score(one) < self.score(lane) for one, where in self.at.items()
            )
            for gate in gates_of(lane)
        )

    # What has to hold

    def no_slot_is_lost(self) -> None:
        """Each holder is an execution of a watched worker, or a grant that has a deadline; and back."""
        held = {
            (gate, holder)
            for worker, holders in self.dump.all("held:").items()
            for holder, lane in holders.items()
            for gate in slots_of(lane)
        }
        unwatched = set(self.dump.all("held:")) - set(self.dump.get("workers"))
        assert not unwatched, f"nobody would bury {unwatched}"
        granted = {
            (gate, self.runs[member]["holder"])
            for member in self.dump.get("grants")
            for gate in slots_of(self.runs[member]["lane"])
        }
        slots = {(gate, holder) for gate, there in self.dump.all("slots:").items() for holder in there}
        assert slots == held | granted, f"lost: {slots - held - granted}, missing: {(held | granted) - slots}"
        grants = {member for member, run in self.runs.items() if run["state"] == "granted"}
        assert grants == set(self.dump.get("grants")), "a grant without a deadline"

    def living_hold_their_slots(self, world: World) -> None:
        for worker in world.workers.values():
            for holder, execution in worker.runs.items():
                for gate in slots_of(execution.spec.lane):
                    is_there = holder in self.dump.get(f"slots:{gate}")
                    assert is_there or not execution.has_slots, f"{holder} lives and has lost {gate}"

    def first_come_first_served(self) -> None:
        for lane, line in self.lines.items():
            order = [(int(self.runs[one]["priority"]), int(self.runs[one]["number"])) for one in line]
            assert order == sorted(order), f"{lane} is out of order: {order}"
            assert all(self.runs[one]["state"] == "waiting" for one in line)
        waiting = {member for member, run in self.runs.items() if run["state"] == "waiting"}
        assert waiting == {one for line in self.lines.values() for one in line}

    def stand_at_one_gate(self) -> None:
        """All indexes tell of the same lanes."""
        assert set(self.at) == set(self.turns) == set(self.lines)
        blocked = self.dump.all("blocked:")
        assert {lane: gate for gate, lanes in blocked.items() for lane in lanes} == self.at
        assert sum(map(len, blocked.values())) == len(self.at), "a lane stands at two gates"
        for gate, lanes in blocked.items():
            order = [self.score(lane) for lane in lanes]
            assert order == sorted(order), f"{gate} is out of order"
        named = {gate for gates in self.dump.all("gates:").values() for gate in gates}
        assert named == set(blocked)

    def nobody_is_forgotten(self) -> None:
        due = self.dump.get("due")
        for lane, gate in self.at.items():
            if self.could_go(lane):
                assert due.get(gate, self.now + 1) <= self.now, f"{lane} is forgotten at {gate}"
        for gate, lanes in self.dump.all("blocked:").items():
            if gate.startswith("slots|") or self.dump.get("paused").get(gate) == "inf":
                continue
            opens_at = self.opens_at(gate, next(iter(lanes)))
            assert gate in due, f"nobody will look at {gate}"
            assert due[gate] <= max(self.now, opens_at), (
                f"{gate} opens {due[gate] - opens_at} ms before it is due"
            )

    def opens_at(self, gate: str, lane: str) -> int:
        if gate == START:
            return int(self.dump.get("state")["ready_at"])
        if not gate.startswith("rate|"):
            return int(self.dump.get("paused").get(gate, 0))
        count, per, granule = rate(self.value(gate))
        units = dict(zip(gates_of(lane), map(int, self.head(lane)["units"].split(",")), strict=True))
        over = self.used(gate) + min(units[gate], count) - count
        for entry in self.dump.get(f"rate:{gate}", []):
            at, freed = map(int, entry.split(":"))
            if at + granule + per <= self.now:
                continue
            if over <= 0:
                break
            over, opens = over - freed, at + granule + per
        return opens if self.used(gate) + min(units[gate], count) > count else self.now
