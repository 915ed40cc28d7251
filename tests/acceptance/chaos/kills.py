"""Processes that are killed, stopped for a while, or started anew with another clock."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil

from tests.acceptance.chaos.hits import Hit, Wait, one
from tests.acceptance.chaos.system import HOUR, Place, System
from tests.waiting import wait_until


def worker_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    """Its main process alone, its group, or all of it and what keeps its lease."""
    place, how = one(system.workers(), chance), chance.choice(["parent", "group", "plug"])
    if place.is_ready():
        yield f"{how} of {place.name}", [place]
        with suppress(ValueError, psutil.NoSuchProcess):
            place.worker.kill(how)


def worker_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """Beyond its lease when the keeper is stopped too; a keeper that lives renews it all the while."""
    place, seconds = one(system.workers(), chance), chance.uniform(1, 6)
    with_keeper = chance.random() < 0.7
    yield f"{place.name} for {seconds:.1f} s{', with its keeper' if with_keeper else ''}", [place]
    _stop(place, seconds, wait, with_keeper)


def child_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    """A pool process, as an out-of-memory killer would."""
    prefork = [place for place in system.workers() if "prefork" in place.command]
    place, number = one(prefork, chance), chance.random()
    if not place.is_ready():
        return
    with suppress(ValueError, psutil.NoSuchProcess):
        pool = place.worker.pool()
        child = pool[int(number * len(pool))]
        yield f"pool process {child.pid} of {place.name}", [place]
        child.kill()


def bridge_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    place = one(system.bridges(), chance)
    yield place.name, [place]
    place.signal(signal.SIGKILL)


def bridge_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """Beyond its lease, often: the other one takes over, and it must find that out."""
    place, seconds = one(system.bridges(), chance), chance.uniform(1, 4)
    yield f"{place.name} for {seconds:.1f} s", [place]
    _stop(place, seconds, wait)


def clock(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """A worker ends warmly and starts again with its clock an hour off, or right again."""
    place, offset = one(system.workers(), chance), chance.choice([-HOUR, HOUR])
    if not place.is_ready():
        return
    offset = 0 if place.clock else offset
    yield f"{place.name} starts again {offset:+} s off", [place]
    started = place.starts
    place.set_clock(offset)
    place.end_warmly()
    with suppress(AssertionError):  # it may be as slow as the machine is
        wait_until(lambda: place.starts > started and place.is_ready(), f"{place.name} is back", 20)


def _stop(place: Place, seconds: float, wait: Wait, with_keeper: bool = False) -> None:
    place.signal(signal.SIGSTOP, with_keeper)
    try:
        wait(seconds)
    finally:
        place.signal(signal.SIGCONT, with_keeper)
