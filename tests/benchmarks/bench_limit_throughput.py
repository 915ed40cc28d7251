"""Tasks a second with and without a limit that is never reached, on one app with the bridge.

PYTHONPATH=. python tests/benchmarks/bench_limit_throughput.py [tasks] [rounds] [slots ...]
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import NamedTuple

import psutil
import redis

from tests.benchmarks.parts import environment, machine, publish, redis_server, worker
from tests.waiting import wait_until


class Round(NamedTuple):
    """Runs a second, and microseconds of CPU that each took."""

    rate: float
    main: float
    pool: float
    redis: float

    @property
    def cpu(self) -> float:
        return self.main + self.pool + self.redis


def main(tasks: int = 3_000, rounds: int = 7, *slots: int) -> None:
    with redis_server() as client:
        print(machine(client))
        for each in slots or (2, 4):
            one_pool(client, each, tasks, rounds)


def one_pool(client: redis.Redis, slots: int, tasks: int, rounds: int) -> None:
    """In turns on the same warm worker, so that a busy machine is unjust to both."""
    env = environment(client)
    measured: dict[str, list[Round]] = {"noop": [], "noop_limited": []}
    names = list(measured)
    with worker(env, slots, f"c{slots}") as process:
        for task in names:
            one_round(client, process, env, task, tasks)
        for number in range(rounds):
            for task in names if number % 2 else reversed(names):
                measured[task].append(one_round(client, process, env, task, tasks))
    show(slots, measured)


def one_round(
    client: redis.Redis, process: psutil.Process, env: dict[str, str], task: str, tasks: int
) -> Round:
    """All messages come at once; they were published to another queue before."""
    stock, queue = f"{env['BENCH_QUEUE']}-stock", env["BENCH_QUEUE"]
    publish(env, task, tasks, stock)
    before = cpu(client, process)
    started = time.perf_counter()
    client.rename(stock, queue)
    wait_until(lambda: client.llen(queue) + client.hlen("unacked") == 0, "all is done", 120, every=0.01)
    rate = tasks / (time.perf_counter() - started)
    used = (after - at_start for after, at_start in zip(cpu(client, process), before, strict=True))
    return Round(rate, *(seconds / tasks * 1e6 for seconds in used))


def cpu(client: redis.Redis, process: psutil.Process) -> tuple[float, float, float]:
    """Seconds that the worker's main process, its children and Redis have used."""
    server = psutil.Process(client.info("server")["process_id"])
    main, *pool, of_redis = (sum(each.cpu_times()[:2]) for each in (process, *process.children(True), server))
    return main, sum(pool), of_redis


def show(slots: int, measured: dict[str, list[Round]]) -> None:
    print(f"prefork -c {slots:<12}  tasks/s | CPU us a task:  main    pool   Redis  in all")
    for task, rounds in measured.items():
        rate, *used = (median(each[place] for each in rounds) for place in range(4))
        used.append(median(each.cpu for each in rounds))
        print(f"  {task:<20}{rate:9,.0f}{'':>18}" + "".join(f"{each:8,.0f}" for each in used))
    pairs = list(zip(measured["noop_limited"], measured["noop"], strict=True))
    ratios = sorted(limited.rate / free.rate for limited, free in pairs)
    told = f"limited / unlimited in pairs: {ratios[0]:.0%}, median {median(ratios):.0%}, {ratios[-1]:.0%}"
    print(f"  {told}; CPU {median(limited.cpu / free.cpu for limited, free in pairs):.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
