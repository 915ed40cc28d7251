"""Faults by class: each is done to the system and healed, and tells whom it hit and when."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psutil

from tests.acceptance.chaos.journal import now
from tests.acceptance.chaos.system import Place, System

Wait = Callable[[float], object]
"""Lets a fault last for some seconds; ends early when all is to be healed."""


@dataclass
class Fault:
    """One fault as it happened; `places` are the processes that it hit."""

    kind: str
    detail: str
    places: frozenset[str]
    begin: float
    end: float = field(default=0.0)

    def overlaps(self, since: float, until: float) -> bool:
        return self.begin <= until and since <= self.end


Hit = tuple[str, list[Place]]
Inject = Callable[[System, random.Random, Wait], Iterator[Hit]]
"""Yields what it does and whom it hits right before it does it; is healed when it returns."""


def _one(places: list[Place], chance: random.Random) -> Place:
    """One that works, if any does; the same seed asks for the same one."""
    place = chance.choice(places)
    return place if place.is_alive() else next((each for each in places if each.is_alive()), place)


def worker_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    place, how = _one(system.workers(), chance), chance.choice(["parent", "group", "plug"])
    if place.is_ready():
        yield f"{how} of {place.name}", [place]
        with suppress(ValueError, psutil.NoSuchProcess):
            place.worker.kill(how)


def worker_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """Beyond the lease when the keeper is stopped too; without it, the lease lives on."""
    place, seconds = _one(system.workers(), chance), chance.uniform(1, 6)
    with_keeper = chance.random() < 0.7
    yield f"{place.name} for {seconds:.1f} s{', with its keeper' if with_keeper else ''}", [place]
    yield from _stopped(place, seconds, wait, with_keeper)


def child_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    prefork = [place for place in system.workers() if "prefork" in place.command]
    place, number = _one(prefork, chance), chance.random()
    if not place.is_ready():
        return
    with suppress(ValueError, psutil.NoSuchProcess):
        pool = place.worker.pool()
        child = pool[int(number * len(pool))]
        yield f"pool process {child.pid} of {place.name}", [place]
        child.kill()


def bridge_kill(system: System, chance: random.Random, _: Wait) -> Iterator[Hit]:
    place = _one(system.bridges(), chance)
    yield place.name, [place]
    place.signal(signal.SIGKILL)


def bridge_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    place, seconds = _one(system.bridges(), chance), chance.uniform(1, 4)
    yield f"{place.name} for {seconds:.1f} s", [place]
    yield from _stopped(place, seconds, wait, False)


KINDS: Final[dict[str, Inject]] = {
    "worker-kill": worker_kill,
    "worker-stop": worker_stop,
    "child-kill": child_kill,
    "bridge-kill": bridge_kill,
    "bridge-stop": bridge_stop,
}


def _stopped(place: Place, seconds: float, wait: Wait, with_keeper: bool) -> Iterator[Hit]:
    place.signal(signal.SIGSTOP, with_keeper)
    try:
        wait(seconds)
    finally:
        place.signal(signal.SIGCONT, with_keeper)
    yield from ()


class Faults:
    """Injects faults one after the other, in the order that a seed gives: first each class once, then any."""

    def __init__(self, system: System, seed: int, pauses: tuple[float, float], only: list[str]) -> None:
        self.done: list[Fault] = []
        self._system, self._chance, self._pauses = system, random.Random(seed), pauses
        self._kinds = only or list(KINDS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def heal(self) -> None:
        """Inject no more, and let the last one end now."""
        self._over.set()
        self._thread.join()

    def is_round(self) -> bool:
        """Each class has been injected."""
        return {fault.kind for fault in self.done} >= set(self._kinds)

    def _order(self) -> Iterator[str]:
        order = self._chance.sample(self._kinds, len(self._kinds))
        while True:  # a fault may have found nothing to hit
            missing = [kind for kind in order if all(fault.kind != kind for fault in self.done)]
            yield missing[0] if missing else self._chance.choice(order)

    def _run(self) -> None:
        for kind in self._order():
            if self._over.wait(self._chance.uniform(*self._pauses)):
                return
            self._inject(kind, random.Random(self._chance.random()))

    def _inject(self, kind: str, chance: random.Random) -> None:
        for detail, places in KINDS[kind](self._system, chance, self._over.wait):
            names = frozenset(place.name for place in places)
            self.done.append(Fault(kind, detail, names, now(), end=float("inf")))
        if self.done and self.done[-1].end == float("inf"):
            self.done[-1].end = now()
