"""How many runs of a task may execute at once, and how many may start in a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

Key = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `slots` runs execute at once, over all workers; split by `key`, shared by `name`.

    >>> Limit(1, key="user_id")         # one run of each user
    >>> Limit(20, name="openai")        # one limit shared by several tasks

    Raises:
        ValueError: `slots` is below 1.
    """

    slots: int
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.slots, bool) or not isinstance(self.slots, int) or self.slots < 1:
            raise ValueError(f"concurrency={self.slots!r}: give a whole number of at least 1")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` units start per `per`, over all workers; a run costs one unit or `units(...)`.

    Raises:
        ValueError: `count` is below 1, or `per` is no positive time.
    """

    count: int
    per: timedelta
    key: Key | None = None
    name: str | None = None
    units: Callable[..., int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"Rate({self.count!r}, ...): give a whole number of at least 1")
        if not isinstance(self.per, timedelta) or self.per <= timedelta(0):
            raise ValueError(f"Rate(per={self.per!r}): give a positive timedelta")


Concurrency = int | Limit | Sequence[Limit]


def limits_of(concurrency: Concurrency | None) -> tuple[Limit, ...]:
    """What a task's `concurrency` option means, as limits that are decided together."""
    if concurrency is None:
        return ()
    if isinstance(concurrency, Limit):
        return (concurrency,)
    if isinstance(concurrency, Sequence) and not isinstance(concurrency, str):
        if not concurrency or not all(isinstance(limit, Limit) for limit in concurrency):
            raise ValueError(f"concurrency={concurrency!r}: a list may hold Limit(...) values only")
        return tuple(concurrency)
    return (Limit(concurrency),)


def rates_of(rate: Rate | Sequence[Rate] | None) -> tuple[Rate, ...]:
    """What a task's `rate` option means, as rates that are decided together."""
    if rate is None:
        return ()
    rates = (rate,) if isinstance(rate, Rate) else tuple(rate)
    if not rates or not all(isinstance(one, Rate) for one in rates):
        raise ValueError(f"rate={rate!r}: give a Rate(count, per=timedelta(...)) or a list of them")
    return rates
