"""The commands by hand: one worker, one queue, a clock to set."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from redis import Redis

from bridge.limits.answers import Answer, Ask, Parcel, Swept, Unacked
from bridge.limits.scripts import LimitScripts
from tests.integration.limits.virtual import START_OF_TIME, set_clock

LEASE, GRANT = timedelta(seconds=16), timedelta(seconds=10)
MINUTE = 60_000


class Desk:
    """The commands by hand: one worker, one queue, a clock to set."""

    def __init__(self, redis: Redis, scripts: LimitScripts) -> None:
        self.redis, self.scripts = redis, scripts
        self.now, self.sent = START_OF_TIME, 0
        self.lanes: dict[str, tuple[str, str]] = {}
        set_clock(redis, self.now)

    def declare(self, *, grace: bool = False, **values: str) -> None:
        declared = {name.replace("_", "|", 1): value for name, value in values.items()}
        self.scripts.declare(declared, LEASE, GRANT, nothing_runs=not grace)

    def ask(
        self,
        lane: str,
        *units: int,
        worker: str = "w",
        priority: int = 0,
        member: str = "",
        queue: str = "queue",
    ) -> Answer:
        """A run asks; by default a new one, with a unit for each gate."""
        self.sent += 1
        member = member or f"run{self.sent}:1:0"
        ask = Ask(member, worker, lane, units or (1,) * (len(lane.split()) - 1), priority)
        self.redis.hset("unacked", member, "message")
        parcel = Parcel(member.encode(), queue, "{}", unacked=Unacked("unacked", "index", member))
        answer = self.scripts.admit(ask, parcel)
        if answer.word == "run":
            self.lanes[answer.holder] = (worker, lane)
        return answer

    def end(self, holder: str) -> None:
        worker, lane = self.lanes.pop(holder)
        self.scripts.release(worker, holder, lane)

    def granted(self) -> list[str]:
        """The members granted since the last look, in order; none of them is taken up."""
        return [message.decode() for message in self.redis.lpop("queue", 1_000_000) or []]

    def take_up(self, member: str, lane: str) -> str:
        answer = self.ask(lane, member=member)
        assert answer.word == "run"
        return answer.holder

    def later(self, ms: int) -> Swept:
        self.now += ms
        set_clock(self.redis, self.now)
        return self.sweep()

    def sweep(self, worker: str = "watch") -> Swept:
        return self.scripts.sweep(worker, LEASE)

    def at(self) -> Counter[str]:
        """How many lanes stand at each gate."""
        return Counter(gate.decode() for gate in self.redis.hvals(f"{self.scripts.root}at"))
