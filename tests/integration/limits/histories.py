"""A history is a list of steps: what happens, and three numbers that say to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from redis import Redis

from tests.integration.limits.both import GRANT_MS, LEASE_MS, Both
from tests.integration.limits.dump import dumper, view_of
from tests.integration.limits.invariants import Invariants
from tests.integration.limits.model import gates_of, targets, task_of
from tests.integration.limits.world import DECLARED, LANES, MINUTE, QUEUES, RABBIT, Spec, Worker, World

MOST_UNENDED, MOST_WORKERS = 14, 4
MOST_SWEEPS = 60  # of two lanes each, which may have to move from gate to gate
TIMES = (
    1,
    59,
    300,
    1_000,
    3_000,
    GRANT_MS - 1,
    GRANT_MS,
    LEASE_MS // 2,
    LEASE_MS,
    MINUTE,
    MINUTE + 60,
    3_600_000,
)
BACK = (31, 1_001, 59_987, 3_599_929)  # no two renewals at one time
VALUES = {"slots": ("1", "2", "3"), "rate": (f"1:{MINUTE}", f"2:{MINUTE}", f"5:{MINUTE}")}
CHOICES = {"slots": (1,), "rate": (1, 1, 2, 3, 4)}

T = TypeVar("T")
Step = Callable[["History", int, int, int], None]
Steps = list[tuple[Step, int, int, int]]


class History:
    """Plays steps in a world; each is followed by a comparison and all checks."""

    def __init__(self, redis: Redis, choice: int) -> None:
        self.world = World(Both(redis, most_moves=(64, 64, 64, 2)[choice % 4]))
        self.lanes = [lane for place, lane in enumerate(LANES) if choice >> (2 + place) & 1] or list(
            LANES[:2]
        )
        self.invariants, self.dump = Invariants(self.world), dumper(redis)
        self.is_restoring = self.clock_went_back = self.has_swept = False
        self.sent = 0
        for _ in range(2):
            self.world.join()
        if choice % 8:
            self.world.both.declare(DECLARED, nothing_runs=True)

    def play(self, steps: Steps) -> None:
        for step, *others in steps:
            step(self, *others)
            self.check()
        if not self.world.awake():
            self.world.join()
        for time in (0, -BACK[-1], LEASE_MS, TIMES[-1]):
            self.come_to_rest(time)

    def come_to_rest(self, time: int) -> None:
        """Sweeps follow each other at once only while there is something left to do."""
        self.clock_went_back, self.is_restoring = time < 0, True
        self.world.pass_time(time)
        self.check()
        for _ in range(MOST_SWEEPS):
            self.world.both.next_in = timedelta(hours=1)
            self.sweep(0, 0, 0)
            self.check()
            if self.world.both.next_in > timedelta(0):
                return
        raise AssertionError("each sweep is due at once after the one before")

    def check(self) -> None:
        dump, model = self.dump(), self.world.model
        told, known = dump.view(), view_of(model)
        for part, value in known.items():
            assert told[part] == value, f"{part}: Redis {told[part]}, model {value}"
        for queue, message in model.pushed:
            assert message in dump.plain(queue), "a granted message was not pushed"
        model.pushed.clear()
        if self.has_swept and model.most_moves == 64:
            assert self.world.both.next_in > timedelta(0), "a sweep is due at once again"
        self.invariants.check(dump, restoring=self.is_restoring, clock_went_back=self.clock_went_back)
        self.is_restoring = self.has_swept = False

    # Runs

    def send(self, a: int, b: int, c: int) -> None:
        world = self.world
        if len(set(world.specs) - world.ended) >= MOST_UNENDED:
            return
        self.sent += 1
        task, attempt = (self.sent, 1) if c % 16 else (max(1, self.sent - 1), 2)
        if f"run{task}:{attempt}:0" in world.specs:
            return
        lane = self.lanes[a % len(self.lanes)]
        units = tuple(
            CHOICES[gate.split("|")[0]][c % len(CHOICES[gate.split("|")[0]])] for gate in gates_of(lane)
        )
        mode = {0: "drop", 1: "cancel_running", 2: "cancel_running"}.get(b >> 4, "wait")
        queue = RABBIT if c >> 4 == 0 else QUEUES[b % 2]
        expires_at = world.now + TIMES[c % len(TIMES)] if c >> 4 in (1, 2) else 0
        world.send(Spec(f"run{task}:{attempt}:0", lane, units, max(0, b % 16 - 11), mode, queue, expires_at))

    def receive(self, a: int, b: int, c: int) -> None:
        for worker in some(self.world.awake(), a):
            place = c // 16 if c % 16 == 0 else 0
            self.world.receive(worker, (*QUEUES, RABBIT)[b % 3], place, ask_first=bool(c & 1))

    def send_and_receive(self, a: int, b: int, c: int) -> None:
        self.send(a, b, c)
        spec = list(self.world.specs.values())[-1]
        for worker in some(self.world.awake(), c // 3):
            place = len(self.world.rabbit) - 1 if spec.queue == RABBIT else -1
            if spec.queue == RABBIT or self.world.redis.llen(spec.queue):
                self.world.receive(worker, spec.queue, place, ask_first=bool(b & 1))

    def end(self, a: int, b: int, c: int) -> None:
        for worker, holder in self.executions(a, b):
            self.world.end(worker, holder)

    def give_back(self, a: int, b: int, c: int) -> None:
        for worker, holder in self.executions(a, b):
            execution = worker.runs[holder]
            self.world.both.disown(holder)
            self.world.requeue(execution.spec, execution.message)
            execution.returned = True

    def executions(self, a: int, b: int) -> list[tuple[Worker, str]]:
        worker = some([worker for worker in self.world.awake() if worker.runs], a)
        return [(one, holder) for one in worker for holder in some(list(one.runs), b)]

    def come_twice(self, a: int, b: int, c: int) -> None:
        for message in some(self.world.copies[-8:], a):
            queue = self.world.specs[self.world.member_in(message)].queue
            self.world.publish(queue, message, first=bool(c & 1))

    def redeliver(self, a: int, b: int, c: int) -> None:
        self.world.redeliver(a)

    def lose(self, a: int, b: int, c: int) -> None:
        """A granted message never arrives."""
        world = self.world
        for queue in QUEUES:
            for message in world.redis.lrange(queue, 0, -1):
                run = world.model.runs.get(world.member_in(message))
                if run and run.state == "granted":
                    world.redis.lrem(queue, 1, message)
                    world.excused.add(world.member_in(message))
                    return

    def publish(self, a: int, b: int, c: int) -> None:
        """Somebody publishes what was granted, and may die before it notes so, or before it does so."""
        found = self.world.both.next_outgoing()
        if found and a % 8:
            self.world.rabbit.append(found[1])
            if a % 4:
                self.world.both.sent(found[0])

    def withdraw(self, a: int, b: int, c: int) -> None:
        for member in some(list(self.world.specs), a):
            if found := self.world.both.withdraw(task_of(member)):
                self.world.withdrawn.append(found)

    def forget(self, a: int, b: int, c: int) -> None:
        for member in some(self.world.withdrawn, a):
            self.world.withdrawn.remove(member)
            self.world.forget(member)

    # Workers

    def join(self, a: int, b: int, c: int) -> None:
        if len(self.world.workers) < MOST_WORKERS:
            self.world.join()

    def crash(self, a: int, b: int, c: int) -> None:
        for worker in some(list(self.world.workers.values()), a):
            self.world.crash(worker)
            if b % 4 == 0 and worker.name in self.world.model.workers:
                self.world.both.score(worker.name, 0)

    def stop(self, a: int, b: int, c: int) -> None:
        for worker in some(self.world.awake(), a):
            worker.stopped = True

    def stall(self, a: int, b: int, c: int) -> None:
        """A worker is stopped for so long that the others bury it, or is killed."""
        for worker in some([worker for worker in self.world.awake() if worker.runs], a):
            worker.stopped = True
            if b % 2:
                self.world.crash(worker)
            for time in (LEASE_MS // 2, LEASE_MS // 2):
                self.is_restoring = True
                self.world.pass_time(time)
                self.check()
                self.sweep(c, 0, 0)
                self.check()

    def go_on(self, a: int, b: int, c: int) -> None:
        for worker in some([worker for worker in self.world.workers.values() if worker.stopped], a):
            worker.stopped = False
            self.is_restoring = True
            self.world.both.renew(worker.name)
            self.world.restore(worker)

    def sweep(self, a: int, b: int, c: int) -> None:
        for worker in some(self.world.awake(), a):
            self.world.sweep(worker)
            self.clock_went_back = False
            self.has_swept = True

    # Clocks and operators

    def pass_time(self, a: int, b: int, c: int) -> None:
        self.is_restoring = True
        self.world.pass_time(TIMES[a % len(TIMES)])

    def pass_time_and_sweep(self, a: int, b: int, c: int) -> None:
        self.pass_time(a, b, c)
        self.check()
        self.sweep(b, a, c)

    def step_back(self, a: int, b: int, c: int) -> None:
        """The clock is set back, as is seen by comparison with a sweep shortly before."""
        if not self.world.awake():
            return
        self.sweep(b, a, c)
        self.check()
        self.clock_went_back = self.is_restoring = True
        self.world.pass_time(-BACK[a % len(BACK)])

    def pause(self, a: int, b: int, c: int) -> None:
        target = some(list(targets(self.lanes[a % len(self.lanes)])), b)[0]
        self.world.both.pause(target, None if c % 3 == 0 else TIMES[c % len(TIMES)])

    def resume(self, a: int, b: int, c: int) -> None:
        for target in some(list(self.world.model.paused), a):
            self.world.both.resume(target)

    def override(self, a: int, b: int, c: int) -> None:
        for field in some([gate.rpartition("|")[0] for gate in gates_of(self.lanes[a % len(self.lanes)])], b):
            value = None if c % 4 == 0 else VALUES[field.split("|")[0]][c % 3]
            self.world.both.override([field], value)

    def declare(self, a: int, b: int, c: int) -> None:
        values = dict(DECLARED)
        if a % 2:
            field = list(DECLARED)[b % len(DECLARED)]
            values[field] = VALUES[field.split("|")[0]][c % 3]
        self.world.both.declare(values, nothing_runs=not any(w.runs for w in self.world.workers.values()))

    def lapse(self, a: int, b: int, c: int) -> None:
        """What was kept to recognise second deliveries is over."""
        for member, run in list(self.world.model.runs.items()):
            if run.state == "done":
                del self.world.model.runs[member]
                assert self.world.redis.pttl(f"{self.world.both.root}run:{member}") > 0
                self.world.redis.delete(f"{self.world.both.root}run:{member}")

    def wipe(self, a: int, b: int, c: int) -> None:
        """Redis is emptied; sometimes all of it, queues and all."""
        world = self.world
        world.excused |= set(world.specs) if a % 2 else {m for m, r in world.model.runs.items() if r.message}
        world.both.forget_everything(queues=bool(a % 2))
        self.invariants.started.clear()
        for worker in world.workers.values():
            for execution in worker.runs.values():
                execution.has_slots = False
        if b % 4:
            for worker in some(world.awake(), c):
                world.both.renew(worker.name)
                world.both.declare(DECLARED)


STEPS: list[Step] = [
    *[History.send_and_receive] * 40, *[History.receive] * 24, *[History.end] * 16, *[History.send] * 4,
    *[History.pass_time_and_sweep] * 10, *[History.pass_time] * 5, *[History.sweep] * 5,
    *[History.redeliver] * 8, *[History.come_twice] * 8, *[History.publish] * 6, *[History.give_back] * 4,
    *[History.stall] * 4, *[History.go_on] * 6, *[History.crash] * 2, *[History.join] * 3,
    *[History.stop] * 2, *[History.withdraw] * 4, *[History.forget] * 3, *[History.pause] * 3,
    *[History.resume] * 4, *[History.override] * 5, *[History.declare] * 2, *[History.lose] * 2,
    *[History.lapse] * 2, *[History.step_back] * 2, History.wipe,
]  # fmt: skip


def some(choices: Sequence[T], place: int) -> list[T]:
    """One of them, or none when there is none."""
    return [choices[place % len(choices)]] if choices else []
