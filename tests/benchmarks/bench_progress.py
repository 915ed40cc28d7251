"""What the bridge costs a task: one progress call beside its alternatives, and tasks a second.

PYTHONPATH=. python tests/benchmarks/bench_progress.py [tasks]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import httpx
import psutil
import redis
from celery import Celery

from bridge.appender import Appender
from bridge.events import Patch
from bridge.lifecycle import Identity
from bridge.local import Stack
from bridge.local.running import RunningStack
from bridge.outbox import RedisOutbox
from bridge.run import Run
from bridge.settings import OutboxSettings
from tests.waiting import wait_until

PUBLISH = """
import sys, time
from tests.benchmarks.throughput_app import noop
noop.delay("5f7c2b1e-0000-4000-8000-000000000001")
started = time.perf_counter()
for _ in range(int(sys.argv[1]) - 1):
    noop.delay("5f7c2b1e-0000-4000-8000-000000000001")
print(time.perf_counter() - started)
"""


def main(tasks: int = 2_000, rounds: int = 3) -> None:
    with Stack.running() as stack:
        one_report(stack)
        throughput(stack, tasks, rounds)


def one_report(stack: RunningStack) -> None:
    settings = OutboxSettings(redis_url=stack.redis_url, prefix="bench-progress")
    outbox = RedisOutbox(settings)
    appender = Appender(outbox, settings)
    run_id = str(uuid.uuid4())
    run = Run(Identity(run_id, run_id, "bench"), 1, appender, outbox, 0.3)
    app = Celery("bench", broker=stack.redis_url, backend=stack.redis_url)
    task = app.tasks["celery.accumulate"]
    headers = {"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"}
    with httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers) as rest:
        rest.post("/processing_jobs", json={"id": run_id, "task": "bench"}).raise_for_status()

        def patch(number: int) -> None:
            row = {"progress": number % 100, "message": "Importing"}
            rest.patch("/processing_jobs", params={"id": f"eq.{run_id}"}, json=row)

        ways: dict[str, tuple[int, Callable[[int], object]]] = {
            "self.progress()": (100_000, lambda n: run.progress(n, 100_000, "Importing")),
            "self.checkpoint()": (2_000, lambda n: run.checkpoint({"cursor": n})),
            "one XADD": (
                2_000,
                lambda n: outbox.append([(run_id, Patch(run_id, 1, 0.0, {"current": n, "message": "I"}))]),
            ),
            "update_state, Redis": (
                2_000,
                lambda n: task.update_state(run_id, "PROGRESS", {"current": n, "message": "Importing"}),
            ),
            "row PATCH, pooled": (1_000, patch),
        }
        print(f"{'on the task thread, us':26}{'p50':>10}{'p99':>10}")
        for name, (calls, report) in ways.items():
            p50, p99 = timed(calls, report)
            print(f"{name:26}{p50:10,.1f}{p99:10,.1f}")
    appender.close()


def timed(calls: int, report: Callable[[int], object]) -> tuple[float, float]:
    """Median and 99th percentile of one call, in microseconds."""
    clock, taken = time.perf_counter_ns, []
    for number in range(calls):
        started = clock()
        report(number)
        taken.append(clock() - started)
    taken.sort()
    return taken[calls // 2] / 1e3, taken[calls * 99 // 100] / 1e3


def throughput(stack: RunningStack, tasks: int, rounds: int) -> None:
    rates: dict[str, list[tuple[float, float, float]]] = {"plain": [], "bridge": []}
    for _ in range(rounds):  # in turns, so that a busy machine is unjust to both
        for kind, measured in rates.items():
            measured.append(one_round(stack, kind == "plain", tasks))
    for place, what in enumerate(("published", "executed, prefork -c 2")):
        plain, bridged = (median(each[place] for each in rates[kind]) for kind in ("plain", "bridge"))
        ratio = bridged / plain
        print(f"{what}: plain {plain:,.0f} tasks/s, with the bridge {bridged:,.0f} tasks/s, {ratio:.0%}")
    plain, bridged = (median(each[2] for each in rates[kind]) for kind in ("plain", "bridge"))
    print(f"CPU of worker and Redis a task: plain {plain:,.0f} us, with the bridge {bridged:,.0f} us")


def one_round(stack: RunningStack, plain: bool, tasks: int) -> tuple[float, float, float]:
    """Tasks published and executed in a second, and microseconds of CPU that one took to execute."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    env = {"BENCH_REDIS": stack.redis_url, "BENCH_QUEUE": queue, "PYTHONPATH": os.getcwd()}
    env = {**os.environ, **env, "BENCH_PLAIN": "1" if plain else ""}
    told = subprocess.run(
        [sys.executable, "-c", PUBLISH, str(tasks)], env=env, check=True, capture_output=True, text=True
    )
    client = redis.Redis.from_url(stack.redis_url)
    server = psutil.Process(client.info()["process_id"])
    with worker(env) as process:
        wait_until(lambda: client.llen(queue) < tasks, "the worker works", every=0.001)
        started = time.perf_counter()
        left = client.llen(queue)
        used = cpu(process, server)
        wait_until(lambda: client.llen(queue) + client.hlen("unacked") == 0, "all is done", 120, every=0.005)
        executed = left / (time.perf_counter() - started)
        used = (cpu(process, server) - used) / left * 1e6
    for key in client.scan_iter(f"{queue}*"):
        client.delete(key)
    client.close()
    return (tasks - 1) / float(told.stdout), executed, used


def cpu(worker: psutil.Process, server: psutil.Process) -> float:
    """Seconds of CPU that a worker, its children and Redis have used."""
    return sum(sum(each.cpu_times()[:2]) for each in (worker, *worker.children(recursive=True), server))


@contextmanager
def worker(env: dict[str, str]) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.throughput_app", "worker"]
    command += ["-c", "2", "-l", "WARNING", "--without-gossip", "--without-mingle", "-Ofair"]
    popen = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(popen.pid)
    finally:
        popen.terminate()
        popen.wait(30)


if __name__ == "__main__":
    print(f"{psutil.cpu_count()} CPUs, load {psutil.getloadavg()[0]:.1f}")
    main(*map(int, sys.argv[1:]))
