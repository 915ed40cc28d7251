"""A small world around the commands: queues, workers that crash, messages that are lost or come twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from bridge.limits.answers import Answer, Ask, Parcel, Unacked
from tests.integration.limits.both import Both
from tests.integration.limits.virtual import START_OF_TIME

RABBIT = "rabbit"
QUEUES = ("queue-1", "queue-2")
MINUTE = 60_000

LANES = (
    "task|A| slots|a|",
    "task|B| slots|b:u|1 slots|b|",
    "task|B| slots|b:u|2 slots|b|",
    "task|B| slots|b:u|3 slots|b|",
    "task|C| slots|shared|",
    "task|D| slots|d| slots|shared|",
    "task|E| slots|shared| rate|r|",
    "task|F| rate|r|",
    "task|G| slots|b:u|1 rate|g|1",
    "task|H| slots|h|1 slots|shared| rate|r| rate|g|2",
    "task|I| slots|shared| slots|a|",
)
DECLARED = {
    "slots|a": "2", "slots|b:u": "1", "slots|b": "2", "slots|shared": "1", "slots|d": "1", "slots|h": "1",
    "rate|r": f"3:{MINUTE}", "rate|g": f"2:{MINUTE}",
}  # fmt: skip


@dataclass
class Spec:
    """A run as it was sent."""

    member: str
    lane: str
    units: tuple[int, ...]
    priority: int
    mode: str
    queue: str
    expires_at: int = 0


@dataclass
class Execution:
    """A run that executes; `returned` once its message is on its way back to the queue."""

    spec: Spec
    message: str
    has_slots: bool = True
    returned: bool = False


@dataclass
class Worker:
    name: str
    stopped: bool = False
    runs: dict[str, Execution] = field(default_factory=dict)


class World:
    """What happens outside of the commands."""

    def __init__(self, both: Both) -> None:
        self.both, self.redis, self.model = both, both.redis, both.model
        self.now = START_OF_TIME
        self.redis.flushall()
        both.set_clock(self.now)
        self.specs: dict[str, Spec] = {}
        self.ended: set[str] = set()
        self.excused: set[str] = set()
        self.withdrawn: list[str] = []
        self.copies: list[str] = []
        self.rabbit: list[str] = []
        self.workers: dict[str, Worker] = {}
        self.born = 0

    # Workers and time

    def join(self) -> Worker:
        self.born += 1
        worker = self.workers[f"w{self.born}"] = Worker(f"w{self.born}")
        self.both.renew(worker.name)
        self.both.declare(DECLARED)
        return worker

    def awake(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if not worker.stopped]

    def renew_all(self) -> None:
        for worker in self.awake():
            self.both.renew(worker.name)

    def pass_time(self, ms: int) -> None:
        """Time passes, or the clock jumps; whoever lives tells so before a grace is over."""
        self.renew_all()
        ready_at = self.model.ready_at
        if ready_at is not None and ready_at <= self.now + ms:
            for worker in self.awake():
                self.restore(worker)
        self.now += ms
        self.both.set_clock(self.now)

    def crash(self, worker: Worker) -> None:
        """The worker is gone; what it had not acked stays with the broker."""
        del self.workers[worker.name]
        for execution in worker.runs.values():
            if execution.spec.queue == RABBIT and not execution.returned:
                self.rabbit.append(execution.message)

    def restore(self, worker: Worker) -> None:
        """A worker tells what it executes, as it does now and then."""
        for holder, execution in worker.runs.items():
            if not execution.returned:
                spec = execution.spec
                self.both.restore(worker.name, holder, spec.lane, spec.units, spec.priority)
                execution.has_slots = True

    # Messages

    def send(self, spec: Spec) -> None:
        self.specs[spec.member] = spec
        self.publish(spec.queue, json.dumps({"member": spec.member, "under": "", "tag": spec.member}))

    def publish(self, queue: str, message: str, *, first: bool = False) -> None:
        """Into a queue; at its consuming end where brokers do that."""
        if queue == RABBIT:
            self.rabbit.append(message)
        elif first:
            self.redis.rpush(queue, message)
        else:
            self.redis.lpush(queue, message)

    def receive(self, worker: Worker, queue: str, place: int, *, ask_first: bool) -> None:
        """A worker takes a message, of a Redis broker as kombu does: it is kept until it is acked."""
        if queue == RABBIT:
            if self.rabbit:
                self.offer(worker, self.rabbit.pop(place % len(self.rabbit)), ask_first=ask_first)
            return
        waiting = self.redis.lrange(queue, 0, -1)
        if waiting:
            message = waiting[-1 - place % len(waiting)]
            self.redis.lrem(queue, -1, message)
            tag = json.loads(message)["tag"]
            self.redis.hset("unacked", tag, message)
            self.redis.zadd("unacked_index", {tag: self.now})
            self.offer(worker, message.decode(), ask_first=ask_first)

    def offer(self, worker: Worker, message: str, *, ask_first: bool) -> None:
        """A message stands before the pool."""
        told = json.loads(message)
        spec = self.specs[told["member"]]
        ask = Ask(spec.member, worker.name, spec.lane, spec.units, spec.priority, spec.mode, told["under"])
        if ask_first and (answer := self.both.admit(ask, None)).word != "full":
            return self.follow(worker, spec, message, answer)
        parcel = self.parcel(spec, message)
        return self.follow(worker, spec, message, self.both.admit(ask, parcel))

    def parcel(self, spec: Spec, message: str) -> Parcel:
        told = json.loads(message) | {"under": self.both.epoch}
        if spec.queue == RABBIT:
            return Parcel(json.dumps(told).encode(), "", spec.member, spec.expires_at)
        unacked = Unacked("unacked", "unacked_index", told["tag"])
        return Parcel(json.dumps(told).encode(), spec.queue, spec.member, spec.expires_at, unacked)

    def follow(self, worker: Worker, spec: Spec, message: str, answer: Answer) -> None:
        self.copies.append(message)
        if answer.word == "run":
            worker.runs[answer.holder] = Execution(spec, message)
        elif answer.word == "unknown":
            self.requeue(spec, message)
        elif answer.word == "spare":
            assert self.both.spare(spec.member, self.parcel(spec, message))
        elif answer.word == "dropped":
            self.ack(spec, message)
            self.ended.add(spec.member)
        elif answer.word == "duplicate":
            self.ack(spec, message)
        else:
            assert answer.word == "waiting"

    def ack(self, spec: Spec, message: str) -> None:
        if spec.queue != RABBIT:
            tag = json.loads(message)["tag"]
            self.redis.hdel("unacked", tag)
            self.redis.zrem("unacked_index", tag)

    def member_in(self, message: str | bytes) -> str:
        member: str = json.loads(message)["member"]
        return member

    def requeue(self, spec: Spec, message: str) -> None:
        """As kombu does: what is not among the unacked any more cannot go back."""
        if spec.queue == RABBIT:
            self.rabbit.append(message)
        elif (kept := self.redis.hget("unacked", tag := json.loads(message)["tag"])) is not None:
            self.redis.rpush(spec.queue, kept)
            self.redis.hdel("unacked", tag)
            self.redis.zrem("unacked_index", tag)

    def end(self, worker: Worker, holder: str) -> None:
        execution = worker.runs.pop(holder)
        self.both.release(worker.name, holder, execution.spec.lane, is_over=not execution.returned)
        if not execution.returned:
            self.ack(execution.spec, execution.message)
            self.ended.add(execution.spec.member)

    def forget(self, member: str) -> None:
        self.both.forget(member)
        self.ended.add(member)

    def sweep(self, worker: Worker) -> None:
        before = set(self.model.workers)
        for member in self.both.sweep(worker.name):
            if member not in self.withdrawn:
                self.withdrawn.append(member)
        for other in self.workers.values():
            if other.name in before - set(self.model.workers):
                assert other.stopped, f"{other.name} lives and was buried"
                for execution in other.runs.values():
                    execution.has_slots = False

    def redeliver(self, place: int) -> None:
        """The broker gives out again what was not acked in time, whether or not its worker lives."""
        kept = sorted(self.redis.hkeys("unacked"))
        if kept:
            tag = kept[place % len(kept)]
            message = self.redis.hget("unacked", tag)
            self.requeue(self.specs[json.loads(message)["member"]], message)
