"""Each command given to Redis and to the plain model, their answers compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from redis import Redis

from bridge.limits.answers import Answer, Ask, Parcel
from tests.integration.limits import commands
from tests.integration.limits.model import Model
from tests.integration.limits.virtual import scripts_on, set_clock

LEASE, GRANT = timedelta(seconds=16), timedelta(seconds=10)
LEASE_MS, GRANT_MS = 16_000, 10_000


class Both:
    """The commands; a holder has a name in Redis and one in the model."""

    def __init__(self, redis: Redis, most_moves: int) -> None:
        self.redis, self.model = redis, Model(most_moves)
        self.model.is_queued = self._is_queued
        self.scripts = scripts_on(redis, most_moves)
        self.root = self.scripts.root
        self.epoch = ""
        self.twin: dict[str, str] = {}
        self.next_in = timedelta(0)

    def _is_queued(self, queue: str, message: str) -> bool:
        return self.redis.lpos(queue, message) is not None

    def set_clock(self, now: int) -> None:
        self.model.now = now
        set_clock(self.redis, now)

    def admit(self, ask: Ask, parcel: Parcel | None) -> Answer:
        told = commands.admit(self.model, ask, parcel, self.epoch)
        answer = self.scripts.admit(ask, parcel)
        assert (answer.word, answer.gate, answer.position) == (told.word, told.gate, told.position)
        if answer.holder:
            self.twin[answer.holder] = told.holder
        waiting = [victim.member for victim in answer.victims if not victim.worker]
        running = [(victim.member, victim.worker) for victim in answer.victims if victim.worker]
        assert waiting == told.waiting
        assert len(running) == min(1, len(told.running)), (running, told.running)
        assert set(running) <= set(told.running)
        return answer

    def release(self, worker: str, holder: str, lane: str, is_over: bool) -> None:
        commands.release(self.model, worker, self.twin[holder], lane, is_over)
        found = self.scripts.release(worker, holder, lane, is_over=is_over)
        assert found == len(self.model.outgoing)

    def disown(self, holder: str) -> None:
        assert self.scripts.disown(holder) == commands.disown(self.model, self.twin[holder])

    def spare(self, member: str, parcel: Parcel) -> bool:
        is_kept = commands.spare(self.model, member, parcel)
        assert self.scripts.spare(member, parcel) == is_kept
        return is_kept

    def restore(self, worker: str, holder: str, lane: str, units: tuple[int, ...], priority: int) -> None:
        commands.restore(self.model, worker, self.twin[holder], lane, units, priority)
        self.scripts.restore(Ask(holder.rsplit("#", 1)[0], worker, lane, units, priority), holder)

    def sweep(self, worker: str) -> list[str]:
        """The members to end."""
        ended = commands.sweep(self.model, LEASE_MS)
        swept = self.scripts.sweep(worker, LEASE)
        told = sorted((one.member, one.why, one.message.decode()) for one in swept.ended)
        assert told == sorted(ended)  # type: ignore[type-var]
        assert swept.outgoing == len(self.model.outgoing)
        self.next_in = swept.next_in
        return [member for member, *_ in told]

    def withdraw(self, task_id: str) -> str | None:
        """The member that was taken out of its line."""
        told = commands.withdraw(self.model, task_id, "revoked")
        ended = self.scripts.withdraw(task_id, "revoked")
        assert (ended and (ended.member, ended.message.decode())) == told
        return told and told[0]

    def next_outgoing(self) -> tuple[str, str] | None:
        found = self.scripts.next_outgoing()
        told = commands.next_outgoing(self.model)
        assert (found and (found[0], found[1].decode())) == told
        return told

    def sent(self, member: str) -> None:
        commands.sent(self.model, member)
        self.scripts.sent(member)

    def forget(self, member: str) -> None:
        commands.forget(self.model, member)
        assert self.scripts.forget(member) == len(self.model.outgoing)

    def declare(self, values: dict[str, str], nothing_runs: bool = False) -> None:
        commands.declare(self.model, values, LEASE_MS, GRANT_MS, nothing_runs)
        self.epoch, wait = self.scripts.declare(values, LEASE, GRANT, nothing_runs)
        assert self.model.ready_at is not None
        assert wait == timedelta(milliseconds=max(0, self.model.ready_at - self.model.now))

    def pause(self, target: str, time: int | None) -> None:
        told = self.scripts.pause(target, None if time is None else timedelta(milliseconds=time))
        assert told == commands.pause(self.model, target, time)

    def resume(self, target: str) -> None:
        assert self.scripts.resume(target) == commands.resume(self.model, target)

    def override(self, fields: Sequence[str], value: str | None) -> None:
        """Set values as operators do, and wake whoever waits for them."""
        for field in fields:
            if value is None:
                self.model.overrides.pop(field, None)
                self.redis.hdel(f"{self.root}overrides", field)
            else:
                self.model.overrides[field] = value
                self.redis.hset(f"{self.root}overrides", field, value)
            gates = sorted(gate.decode() for gate in self.redis.smembers(f"{self.root}gates:{field}"))
            self.model.wake(gates)
            self.scripts.wake(gates)

    def renew(self, worker: str) -> None:
        """What the keeper of a worker does."""
        self.model.workers[worker] = self.model.now + LEASE_MS // 2
        self.redis.zadd(f"{self.root}workers", {worker: self.model.workers[worker]})

    def score(self, worker: str, deadline: int) -> None:
        self.model.workers[worker] = deadline
        self.redis.zadd(f"{self.root}workers", {worker: deadline})

    def forget_everything(self, *, queues: bool) -> None:
        """Redis is emptied, of the broker's queues as well when they are in the same."""
        now, numbers = self.model.now, self.model.numbers
        self.model.__init__(self.model.most_moves, numbers=numbers)  # type: ignore[misc]
        self.model.is_queued = self._is_queued
        if queues:
            self.redis.flushall()
        elif keys := self.redis.keys(f"{self.root}*"):
            self.redis.delete(*keys)
        self.set_clock(now)
        self.epoch = ""
