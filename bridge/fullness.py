"""How full something bounded is: said once at each level, before it bites, and again when there is room."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

LEVELS: Final = (0.7, 0.9, 1.0, 2.0)
ROOM_AGAIN: Final = 0.5

_REMIND_AFTER: Final = 60.0


class Gauge:
    """Told readings, it logs the levels that are reached, and every minute that one still is.

    >>> Gauge("the outbox", "is a bridge running?").note(0.72)   # logs "the outbox is 72 % full; ..."
    """

    def __init__(self, name: str, remedy: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._remedy, self._clock = name, remedy, clock
        self._level = 0
        self._said_at = -math.inf
        self.value = 0.0

    def note(self, fullness: float) -> None:
        """Take a reading, 1.0 being full."""
        self.value = fullness
        if self._level and fullness < ROOM_AGAIN:
            log.warning("%s has room again: %d %% full", self._name, fullness * 100)
            self._level = 0
        reached = sum(fullness >= level for level in LEVELS)
        is_news = reached > self._level
        if is_news or (reached and self._clock() - self._said_at > _REMIND_AFTER):
            self._level, self._said_at = max(reached, self._level), self._clock()
            loudness = logging.WARNING if reached < 2 else logging.ERROR
            log.log(loudness, "%s is %d %% full; %s", self._name, fullness * 100, self._remedy)


def outbox_gauge() -> Gauge:
    """The gauge of the fullest partition that a process knows of."""
    remedy = "is a bridge running, and Supabase answering?"
    return Gauge("the outbox", f"{remedy} Progress is shed at 100 %, log lines at 200 %, states never")
