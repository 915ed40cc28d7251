"""How long a decision takes while ever more runs wait, in one lane or in many, and what they take of Redis.

PYTHONPATH=. python tests/benchmarks/bench_limit_decision.py [calls]
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import redis

from bridge.limits.answers import Ask, Parcel
from bridge.limits.scripts import LimitScripts
from tests.benchmarks.parts import machine, percentiles, redis_server

WAITING = ((0, 1), (1_000, 1), (100_000, 1), (100_000, 10_000))  # runs, lanes
MESSAGE = json.dumps({"body": "x" * 120, "headers": {"task": "bench", "more": "x" * 650}}).encode()
LEASE = timedelta(minutes=10)


def main(calls: int = 1_000) -> None:
    with redis_server() as client:
        print(machine(client))
        print(f"{calls} calls each; us on the server (mean), us of the round trip (p50, p99)")
        first: dict[str, float] = {}
        for runs, lanes in WAITING:
            size = one_size(client, runs, lanes, calls, first)
            if runs >= 1_000:
                told = f"a waiting run takes {size:,.0f} bytes of Redis, {len(MESSAGE)} of them its message"
                print(f"{'':36}{told}")


def one_size(client: redis.Redis, runs: int, lanes: int, calls: int, first: dict[str, float]) -> float:
    """Measure with so many waiting; returns the bytes of Redis that each takes."""
    client.flushall()
    scripts = LimitScripts(client, "bench")
    declared = {f"slots|{name}": "5" for name in ("busy", "keyed", "free")}
    scripts.declare({**declared, "slots|free": "1000000"}, LEASE, LEASE, nothing_runs=True)
    waiting = [lane(number, lanes) for number in range(lanes)]
    for number in range(5):
        scripts.admit(ask(f"holder{number}", "task|busy| slots|busy|"))
    before = client.info("memory")["used_memory"]
    for number in range(runs):
        scripts.admit(ask(str(uuid.uuid4()), waiting[number % lanes]), parcel())
    taken = (client.info("memory")["used_memory"] - before) / max(1, runs)
    for what, calling in ways(scripts, waiting, calls).items():
        show(f"{runs:>7,} waiting, {lanes:>6,} lanes", what, measured(client, calling), first)
    return taken


def lane(number: int, lanes: int) -> str:
    return "task|busy| slots|busy|" if lanes == 1 else f"task|busy| slots|keyed|user-{number} slots|busy|"


def ask(task_id: str, its_lane: str) -> Ask:
    return Ask(f"{task_id}:1:0", "worker", its_lane, (1,) * (len(its_lane.split()) - 1))


def parcel() -> Parcel:
    run = str(uuid.uuid4())
    return Parcel(MESSAGE, "bench-queue", json.dumps({"id": run, "root": run, "n": 1, "mirror": True}))


Calls = Iterator[Callable[[], Any]]


def ways(scripts: LimitScripts, waiting: list[str], calls: int) -> dict[str, Calls]:
    """What a worker asks: of a limit with room, of one that is full, and at the end of a run."""
    free = [ask(str(uuid.uuid4()), "task|free| slots|free|") for _ in range(calls)]
    full = [ask(str(uuid.uuid4()), waiting[number % len(waiting)]) for number in range(calls)]
    holders: list[str] = []
    return {
        "admit, free": (lambda each=each: holders.append(scripts.admit(each).holder) for each in free),
        "release, none waits": (
            lambda each=each: scripts.release("worker", each, "task|free| slots|free|") for each in holders
        ),
        "admit, full: told": (lambda each=each: scripts.admit(each) for each in full),
        "admit, full: parked": (lambda each=each: scripts.admit(each, parcel()) for each in full),
        "release, next is sent": releases(scripts, calls),
    }


def releases(scripts: LimitScripts, calls: int) -> Calls:
    """Each end of a run grants its slot to the next, which is taken up in between, untimed."""
    held = dict(scripts.holders("worker"))
    client = scripts._redis
    for _ in range(calls):
        holder, its_lane = next(iter(held.items()))
        del held[holder]
        yield lambda holder=holder, its_lane=its_lane: scripts.release("worker", holder, its_lane)
        member = client.zrange(f"{scripts.root}grants", 0, 0)[0].decode()  # type: ignore[index,union-attr]
        lane_of = client.hget(f"{scripts.root}run:{member}", "lane").decode()  # type: ignore[union-attr]
        held[scripts.admit(ask(member.split(":")[0], lane_of)).holder] = lane_of


def measured(client: redis.Redis, calls: Calls) -> tuple[float, float, float]:
    """The mean on the server, and median and 99th percentile of the round trip, in microseconds."""
    taken, used = [], 0.0
    for call in calls:
        before = spent(client)
        started = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - started) / 1e3)
        used += spent(client) - before
    p50, _, p99 = percentiles(taken)
    return used / len(taken), p50, p99


def spent(client: redis.Redis) -> float:
    return float(client.info("commandstats").get("cmdstat_evalsha", {"usec": 0})["usec"])


def show(where: str, what: str, figures: tuple[float, float, float], first: dict[str, float]) -> None:
    ratio = figures[0] / first.setdefault(what, figures[0])
    print(f"{where:<32}{what:<24}" + "".join(f"{each:9.0f}" for each in figures) + f"   {ratio:.2f}x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
