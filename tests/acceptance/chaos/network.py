"""Connections that are cut, refused, slow or dead, between one process and Redis or the HTTP origin."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.acceptance.chaos.hits import Hit, Inject, Wait, one
from tests.acceptance.chaos.system import Place, System
from tests.acceptance.limits.proxy import Proxy

Link = Callable[[System, random.Random], tuple[Proxy, str, Sequence[Place]]]
"""A proxy, whose it is, and the processes that suffer with it."""


def to_redis(system: System, chance: random.Random) -> tuple[Proxy, str, Sequence[Place]]:
    place = one(list(system.places.values()), chance)
    return place.redis, place.name, [place]


def to_origin(system: System, chance: random.Random) -> tuple[Proxy, str, Sequence[Place]]:
    place = one(system.bridges(), chance)
    assert place.origin is not None
    return place.origin, place.name, [place]


def to_clients(system: System, _: random.Random) -> tuple[Proxy, str, Sequence[Place]]:
    return system.clients, "clients", []


def cut(link: Link) -> Inject:
    """All connections are closed, and new ones refused for a while, or not at all."""

    def inject(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
        proxy, name, places = link(system, chance)
        seconds = chance.choice([0.0, chance.uniform(0.5, 4)])
        yield f"{name}, for {seconds:.1f} s", places
        proxy.refuses = True
        proxy.cut()
        wait(seconds)
        proxy.refuses = False

    return inject


def slow(link: Link) -> Inject:
    """Each piece waits on its way there and on its way back."""

    def inject(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
        proxy, name, places = link(system, chance)
        seconds, delay = chance.uniform(1, 4), chance.uniform(0.02, 0.4)
        yield f"{name}, by {delay * 1000:.0f} ms for {seconds:.1f} s", places
        proxy.delay = delay
        wait(seconds)
        proxy.delay = 0.0

    return inject


def dead(link: Link) -> Inject:
    """Nothing comes through and nobody is told, then it all does."""

    def inject(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
        proxy, name, places = link(system, chance)
        seconds = chance.uniform(1, 6)
        yield f"{name}, for {seconds:.1f} s", places
        proxy.frozen = True
        wait(seconds)
        proxy.frozen = False

    return inject
