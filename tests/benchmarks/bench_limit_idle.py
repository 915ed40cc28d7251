"""What limits cost a worker that has nothing to do: CPU of its processes, memory of its keeper.

PYTHONPATH=. python tests/benchmarks/bench_limit_idle.py [seconds]
"""

from __future__ import annotations

import sys
import time

import psutil
import redis

from tests.benchmarks.parts import environment, machine, redis_server, worker

KINDS = ("plain Celery", "with the bridge and its limits")


def main(seconds: int = 30) -> None:
    with redis_server() as client:
        print(machine(client))
        head = f"idle for {seconds} s, prefork -c 2"
        print(f"{head:<34}{'CPU of main':>12}{'keeper':>8}{'PSS of main':>13}{'keeper':>8}")
        first: float | None = None
        for kind in KINDS:
            cpu, memory = one_kind(client, kind == KINDS[0], seconds)
            first = first or cpu[0]
            row = f"{cpu[0]:12.2%}{cpu[1]:8.2%}{memory[0]:10.0f} MB{memory[1]:5.0f} MB"
            print(f"{kind:<34}{row}   {sum(cpu) / first:.1f}x")


def one_kind(
    client: redis.Redis, plain: bool, seconds: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Parts of a core, and megabytes, of the worker's main process and of its keeper."""
    with worker(environment(client, plain), 2) as process:
        keeper = next((each for each in process.children() if "bridge.limits.keeper" in each.cmdline()), None)
        time.sleep(5)  # what belongs to the start is over
        before = spent(process), spent(keeper)
        time.sleep(seconds)
        after = spent(process), spent(keeper)
        cpu = (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds
        return cpu, (megabytes(process), megabytes(keeper))


def spent(process: psutil.Process | None) -> float:
    return float(sum(process.cpu_times()[:2])) if process is not None else 0.0


def megabytes(process: psutil.Process | None) -> float:
    return float(process.memory_full_info().pss) / 2**20 if process is not None else 0.0


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
