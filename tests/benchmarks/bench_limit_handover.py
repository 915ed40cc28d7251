"""Slot freed to next waiter started, beside a plain queue with `-c 5` and the `self.retry` polling recipe.

PYTHONPATH=. python tests/benchmarks/bench_limit_handover.py [runs] [rounds]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import redis

from tests.benchmarks.parts import environment, machine, percentiles, publish, redis_server, worker
from tests.waiting import wait_until

SLOTS, BODY = 5, 0.05  # as in limits_app.py


class Way(NamedTuple):
    task: str
    workers: int
    slots: int
    plain: bool


WAYS = {
    "concurrency=5": Way("limited", 2, 8, False),
    "a queue, one -c 5": Way("unlimited", 1, 5, True),
    "self.retry polling": Way("polling", 2, 8, True),
}


class Outcome(NamedTuple):
    """What one round of a way took: seconds from each end to the next start, and in all."""

    gaps: list[float]
    most: int
    in_vain: int
    seconds: float


def main(runs: int = 400, rounds: int = 2) -> None:
    with redis_server() as client:
        print(machine(client))
        least = runs / SLOTS * BODY
        print(f"{runs} runs of {BODY * 1e3:.0f} ms, {rounds} rounds; {least:.1f} s at the least")
        outcomes: dict[str, list[Outcome]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                outcomes[name].append(one_round(client, way, runs))
    show(outcomes, least)


def one_round(client: redis.Redis, way: Way, runs: int) -> Outcome:
    client.flushall()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        log = Path(directory) / "log"
        log.touch()
        env = environment(client, way.plain, str(log))
        for number in range(way.workers):
            stack.enter_context(worker(env, way.slots, f"w{number}"))
        publish(env, way.task, runs)
        wait_until(lambda: times(log, "end")[runs - 1 :], "all have run", 300, every=0.2)
        starts, ends = times(log, "start"), times(log, "end")
        assert len(starts) == len(ends) == runs
        # With all slots in use, the start after the n-th end is the one that fills its slot.
        gaps = [(start - end) / 1e9 for end, start in zip(ends, starts[SLOTS:], strict=False)]
        most = at_once(starts, ends)
        return Outcome(gaps, most, len(times(log, "vain")), (ends[-1] - starts[0]) / 1e9)


def times(log: Path, word: str) -> list[int]:
    """When this was logged, in order."""
    lines = (line.split() for line in log.read_text().splitlines())
    return sorted(int(parts[1]) for parts in lines if len(parts) == 2 and parts[0] == word)


def at_once(starts: list[int], ends: list[int]) -> int:
    """How many have executed at once at most."""
    changes = sorted([(time, 1) for time in starts] + [(time, -1) for time in ends])
    most = count = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most


def show(outcomes: dict[str, list[Outcome]], least: float) -> None:
    head = ("p50 ms", "p95 ms", "p99 ms", "at once", "in vain", "total s", "ideal")
    print(f"{'slot freed to next start':<26}" + "".join(f"{each:>9}" for each in head))
    first: tuple[float, float, float] | None = None
    for name, rounds in outcomes.items():
        cuts = percentiles([gap * 1e3 for each in rounds for gap in each.gaps])
        first = first or cuts
        seconds = mean(each.seconds for each in rounds)
        row = "".join(f"{cut:9.1f}" for cut in cuts) + f"{max(each.most for each in rounds):9}"
        row += f"{mean(each.in_vain for each in rounds):9.0f}{seconds:9.1f}{least / seconds:9.0%}"
        ratios = ", ".join(f"{cut / base:.1f}x" for cut, base in zip(cuts, first, strict=True))
        print(f"{name:<26}{row}   {ratios}")
    print("in vain: bodies that took a pool slot only to find the limit reached; at once: the most seen")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
