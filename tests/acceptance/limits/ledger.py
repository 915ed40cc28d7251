"""A log of what executes when, appended to by the bodies themselves, and what can be read off it.

Lines are `<word> <run> <execution> <monotonic ns>`, the clock being the machine's. A body that is killed
writes no end: it was alive at its last line, and bodies write one every few milliseconds.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lines import whole_lines
from tests.waiting import wait_until

LEDGER = "TASKCAST_TEST_LEDGER"
TICK = 0.01


def now() -> float:
    return time.monotonic_ns() / 1e9


@contextmanager
def noted(run: str) -> Iterator[Callable[[], None]]:
    """Note the start and end of a body, which is given what says that it lives; `left` is an exception."""
    descriptor = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    execution = f"{os.getpid()}-{time.monotonic_ns()}"

    def note(word: str) -> None:
        os.write(descriptor, f"{word} {run} {execution} {time.monotonic_ns()}\n".encode())

    note("start")
    try:
        yield lambda: note("alive")
        note("end")
    except BaseException:
        note("left")
        raise
    finally:
        os.close(descriptor)


@dataclass
class Execution:
    """One execution of a body; `end` is "" when it was killed, or goes on."""

    run: str
    pid: int
    since: float
    until: float
    end: str = ""


class Ledger:
    """The log as the test reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.path = str(path)
        path.touch()

    def executions(self) -> list[Execution]:
        """All of them, by start."""
        found: dict[str, Execution] = {}
        for line in whole_lines(self._path):
            word, run, execution, ns = line.split()
            if word == "start":
                found[execution] = Execution(run, int(execution.split("-")[0]), int(ns) / 1e9, int(ns) / 1e9)
            found[execution].until = int(ns) / 1e9
            if word in ("end", "left"):
                found[execution].end = word
        return sorted(found.values(), key=lambda each: each.since)

    def of(self, run: str) -> list[Execution]:
        return [each for each in self.executions() if each.run == run]

    def ends(self) -> Counter[str]:
        """How often the body of each run came to its end."""
        return Counter(each.run for each in self.executions() if each.end == "end")

    def executing(self, since: float | None = None) -> set[str]:
        """The runs that execute: those that have just said so, or since a moment."""
        least = now() - 50 * TICK if since is None else since
        return {each.run for each in self.executions() if not each.end and each.until > least}

    def go_on(self, *runs: str) -> bool:
        """Wait until each of these has said once more that it executes."""
        at = now()
        wait_until(lambda: set(runs) <= self.executing(at), "they execute still")
        return True

    def steps(self) -> list[tuple[float, int]]:
        """How many execute from each moment on."""
        return steps(self.executions())

    def most(self) -> int:
        """The most that ever executed at once."""
        return max((count for _, count in self.steps()), default=0)


def steps(executions: list[Execution]) -> list[tuple[float, int]]:
    """A sweep over starts and ends; at the same instant ends come first."""
    changes = sorted([(each.since, 1) for each in executions] + [(each.until, -1) for each in executions])
    count, found = 0, []
    for at, change in changes:
        count += change
        found.append((at, count))
    return found
