"""What the bridge and its leases cost a no-op task, beside plain Celery: tasks a second, and CPU by parts.

PYTHONPATH=. python tests/benchmarks/bench_overhead.py [tasks] [rounds]
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

import psutil
import redis

from tests.benchmarks.parts import environment, machine, redis_server, worker
from tests.waiting import wait_until

APP = "tests.benchmarks.throughput_app"
PUBLISH = """
import sys, time
from tests.benchmarks.throughput_app import noop
user, stock = "5f7c2b1e-0000-4000-8000-000000000001", sys.argv[2]
noop.apply_async((user,), queue=stock)
started, used = time.perf_counter(), time.process_time()
for _ in range(int(sys.argv[1]) - 1):
    noop.apply_async((user,), queue=stock)
print(time.perf_counter() - started, time.process_time() - used)
"""


class Side(NamedTuple):
    """A worker, and what its processes run on."""

    process: psutil.Process
    env: dict[str, str]


class Round(NamedTuple):
    """Runs published and executed in a second, and microseconds of CPU that each took."""

    published: float
    executed: float
    publisher: float
    publishing: float
    main: float
    pool: float
    redis: float

    @property
    def worker(self) -> float:
        return self.main + self.pool + self.redis


def main(tasks: int = 2_000, rounds: int = 7) -> None:
    with redis_server() as client, ExitStack() as stack:
        print(machine(client))
        sides = {}
        for name in ("plain", "bridge"):
            env = environment(client, plain=name == "plain")
            process = stack.enter_context(worker(env, 2, name, ("-Ofair",), APP))
            sides[name] = Side(process, env)
        for side in sides.values():
            one_round(client, side, tasks)
        measured: dict[str, list[Round]] = {name: [] for name in sides}
        for number in range(rounds):  # in turns, so that a busy machine is unjust to both
            for name in sorted(sides, reverse=bool(number % 2)):
                measured[name].append(one_round(client, sides[name], tasks))
    show(measured["plain"], measured["bridge"])


def one_round(client: redis.Redis, side: Side, tasks: int) -> Round:
    """Publish to another queue first, then let the worker have all messages at once."""
    queue = side.env["BENCH_QUEUE"]
    server = psutil.Process(client.info("server")["process_id"])
    before = seconds(server)
    command = [sys.executable, "-c", PUBLISH, str(tasks), f"{queue}-stock"]
    told = subprocess.run(command, env=side.env, check=True, capture_output=True, text=True)
    took, used = (float(each) / (tasks - 1) for each in told.stdout.split())
    of_redis = (seconds(server) - before) / tasks
    at_start = cpu(side.process, server)
    started = time.perf_counter()
    client.rename(f"{queue}-stock", queue)
    wait_until(lambda: is_done(client, queue), "all is done", 120, every=0.005)
    executed = tasks / (time.perf_counter() - started)
    parts = zip(cpu(side.process, server), at_start, strict=True)
    each = ((after - before) / tasks for after, before in parts)
    return Round(1 / took, executed, *(value * 1e6 for value in (used, of_redis, *each)))


def is_done(client: redis.Redis, queue: str) -> bool:
    """Whether all messages are acked; the bridge keeps a worker's own under a key of its own."""
    return client.llen(queue) == 0 and not client.keys("unacked[^_]*") and client.hlen("unacked") == 0


def cpu(process: psutil.Process, server: psutil.Process) -> tuple[float, float, float]:
    """Seconds that a worker's main process, its children and Redis have used."""
    return seconds(process), sum(map(seconds, process.children(True))), seconds(server)


def seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def show(plain: list[Round], bridged: list[Round]) -> None:
    print(f"{'prefork -c 2, medians':36}{'plain':>9}{'bridge':>9}{'ratio':>8}   in pairs")
    for name, what in (
        ("published", "tasks published a second"),
        ("executed", "tasks executed a second"),
        ("publisher", "CPU us a task: publisher"),
        ("publishing", "  Redis meanwhile"),
        ("main", "CPU us a task: worker's main process"),
        ("pool", "  pool processes"),
        ("redis", "  Redis"),
        ("worker", "  these three"),
    ):
        values = [[getattr(each, name) for each in rounds] for rounds in (plain, bridged)]
        ratios = sorted(b / a for a, b in zip(*values, strict=True) if a)
        one, other = (median(each) for each in values)
        paired = f"{ratios[0]:.0%} to {ratios[-1]:.0%}" if ratios else ""
        print(f"{what:36}{one:9,.0f}{other:9,.0f}{median(ratios) if ratios else 0:8.0%}   {paired}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
