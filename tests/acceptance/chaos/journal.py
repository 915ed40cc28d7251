"""The first ledger: what the bodies of runs did, noted by themselves, each line with one write.

A body that is killed notes no end: it lived at its last line. Times are monotonic, the machine's own, so that
a worker whose wall clock is off notes true ones.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge import current_run
from tests.lines import whole_lines

JOURNAL = "TASKCAST_CHAOS_JOURNAL"
WORKER = "TASKCAST_CHAOS_WORKER"
END = "end"


def now() -> float:
    return time.monotonic_ns() / 1e9


@contextmanager
def noted(task: Any) -> Iterator[Callable[[int], None]]:
    """Note a body's start, each step that it is told of, and how it is left: "end" or the exception."""
    run = current_run()
    assert run is not None
    descriptor = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    head = {
        "run": run.run_id,
        "task": task.name.rpartition(".")[2],
        "level": task.request.retries,
        "attempt": run.attempt,
        "parent": run.identity.parent_id,
        "execution": f"{os.getpid()}-{time.monotonic_ns()}",
        "pid": os.getpid(),
        "worker": os.environ.get(WORKER, ""),
    }

    def note(word: str, step: int | None = None) -> None:
        line = json.dumps({**head, "word": word, "step": step, "at": now()})
        os.write(descriptor, f"{line}\n".encode())

    note("start")
    try:
        yield lambda step: note("step", step)
        note(END)
    except BaseException as error:
        note(f"left:{type(error).__name__}")
        raise
    finally:
        os.close(descriptor)


@dataclass
class Execution:
    """One execution of a body; `end` is how it was left, "" when it was killed or goes on.

    Attributes:
        level: how often the run had asked to be tried again before.
    """

    run: str
    task: str
    level: int
    attempt: int
    parent: str | None
    pid: int
    worker: str
    since: float
    until: float
    end: str = ""
    steps: list[int] = field(default_factory=list)


def read(path: Path) -> list[Execution]:
    """All executions by their start."""
    found: dict[str, Execution] = {}
    for line in whole_lines(path):
        told = json.loads(line)
        word, at, key = told["word"], told["at"], told["execution"]
        if word == "start":
            names = ("run", "task", "level", "attempt", "parent", "pid", "worker")
            found[key] = Execution(**{name: told[name] for name in names}, since=at, until=at)
            continue
        found[key].until = at
        if word == "step":
            found[key].steps.append(told["step"])
        else:
            found[key].end = word
    return sorted(found.values(), key=lambda each: each.since)
