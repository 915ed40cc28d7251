"""What a fault is made of: whom it hits, how, and how long it lasts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.acceptance.chaos.system import Place, System

Wait = Callable[[float], object]
"""Lets a fault last for some seconds; returns early when all is to be healed."""

Hit = tuple[str, Sequence[Place]]
Inject = Callable[[System, random.Random, Wait], Iterator[Hit]]
"""Yields what it does and whom it hits right before it does it; when it returns, that is healed.

One that finds nothing to hit yields nothing.
"""


def one(places: Sequence[Place], chance: random.Random) -> Place:
    """One that is up, if any is; the same seed asks for the same one."""
    place = chance.choice(places)
    return place if place.is_alive() else next((each for each in places if each.is_alive()), place)
