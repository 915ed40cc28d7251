"""The commands behind limits, by a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from redis import Redis

from bridge.limits.scripts import LimitScripts
from bridge.scripts import source

PREFIX = "test"
CLOCK = "clock"
START_OF_TIME = 1_700_000_000_000

_BY_KEY = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK}')) end"
_MOST_MOVES = "local MOST_MOVES = 64"


def virtual(most_moves: int = 64) -> Callable[[str], str]:
    """Loads a command with a virtual clock, and with less work at a time if so wished."""

    def load(name: str) -> str:
        text = source(name)
        replaced = (
            ("limits_clock", source("limits_clock"), _BY_KEY),
            ("limits_lanes", _MOST_MOVES, f"local MOST_MOVES = {most_moves}"),
        )
        used = [part for part in ("limits_clock", "limits_lanes") if source(part) in text]
        for part, old, new in replaced:
            assert text.count(old) == (part in used), f"{part} has changed"
            text = text.replace(old, new)
        assert "'TIME'" not in text, f"{name} has a clock of its own"
        return text

    return load


def set_clock(redis: Redis, now: int) -> None:
    redis.set(CLOCK, now)


@cache
def scripts_on(redis: Redis, most_moves: int = 64) -> LimitScripts:
    """The commands by the virtual clock; made once, as they keep a connection of their own."""
    return LimitScripts(redis, PREFIX, virtual(most_moves))
