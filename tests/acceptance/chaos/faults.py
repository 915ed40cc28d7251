"""Faults by class, injected one after the other from a seeded schedule, and what was injected when."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.acceptance.chaos import kills, network, outages
from tests.acceptance.chaos.hits import Inject
from tests.acceptance.chaos.journal import now
from tests.acceptance.chaos.system import System

KINDS: Final[dict[str, Inject]] = {
    "worker-kill": kills.worker_kill,
    "worker-stop": kills.worker_stop,
    "child-kill": kills.child_kill,
    "bridge-kill": kills.bridge_kill,
    "bridge-stop": kills.bridge_stop,
    "clock": kills.clock,
    "redis-kill": outages.redis_kill,
    "redis-stop": outages.redis_stop,
    "redis-cut": network.cut(network.to_redis),
    "redis-slow": network.slow(network.to_redis),
    "redis-dead": network.dead(network.to_redis),
    "postgres-restart": outages.restart("postgres"),
    "postgres-crash": outages.postgres_crash,
    "rest-restart": outages.restart("rest"),
    "realtime-restart": outages.restart("realtime"),
    "gateway-stop": outages.gateway_stop,
    "origin-cut": network.cut(network.to_origin),
    "origin-slow": network.slow(network.to_origin),
    "origin-dead": network.dead(network.to_origin),
    "client-cut": network.cut(network.to_clients),
}

LASTS = float("inf")


@dataclass
class Fault:
    """One fault as it happened; `places` are the processes that it hit."""

    kind: str
    detail: str
    places: frozenset[str]
    begin: float
    end: float = LASTS

    def overlaps(self, since: float, until: float) -> bool:
        return self.begin <= until and since <= self.end


class Faults:
    """Injects faults in the order that a seed gives: first each class once, then any.

    Args:
        pauses: seconds between two, at least and at most.
        only: these classes instead of all.
    """

    def __init__(self, system: System, seed: int, pauses: tuple[float, float], only: list[str]) -> None:
        self.done: list[Fault] = []
        self.broken: BaseException | None = None
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
        if self.broken is not None:
            raise self.broken

    def is_round(self) -> bool:
        """Each class has been injected, or the injector itself is broken."""
        return self.broken is not None or {fault.kind for fault in self.done} >= set(self._kinds)

    def _run(self) -> None:
        try:
            for kind in self._order():
                if self._over.wait(self._chance.uniform(*self._pauses)):
                    return
                self._inject(kind, random.Random(self._chance.random()))
        except BaseException as error:
            self.broken = error

    def _order(self) -> Iterator[str]:
        order = self._chance.sample(self._kinds, len(self._kinds))
        while True:  # a fault may have found nothing to hit
            missing = [kind for kind in order if all(fault.kind != kind for fault in self.done)]
            yield missing[0] if missing else self._chance.choice(order)

    def _inject(self, kind: str, chance: random.Random) -> None:
        fault = None
        for detail, places in KINDS[kind](self._system, chance, self._over.wait):
            fault = Fault(kind, detail, frozenset(place.name for place in places), now())
            self.done.append(fault)
        if fault is not None:
            fault.end = now()
