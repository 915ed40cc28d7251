"""The deployment's one wall clock, Redis': times in messages and rows go by it, whatever a machine says.

Celery tells a countdown and an expiry as times of day, read off the clock of whoever publishes and judged by
that of the worker. Where one of the two is an hour off, runs would expire at once, or start an hour late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.settings import OutboxSettings

TOLERANCE: Final = 2.0
"""Seconds by which a clock may be off before anything is corrected."""

_GOOD_FOR: Final = 600.0
_ASK_AGAIN_AFTER: Final = 10.0
_ASK_FIRST_AGAIN_AFTER: Final = 1.0


class SharedClock:
    """How far this machine's clock is off Redis', asked for now and then; steps in between are noticed."""

    def __init__(
        self,
        settings: OutboxSettings,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._wall, self._monotonic = settings, wall, monotonic
        self._epoch: float | None = None  # of the monotonic clock, by Redis
        self._ask_at = -math.inf

    def ahead(self) -> float:
        """Seconds that this machine's clock is ahead; 0 when that is next to nothing, or not known."""
        if self._monotonic() >= self._ask_at:
            self._ask()
        if self._epoch is None:
            return 0.0
        ahead = self._wall() - self._monotonic() - self._epoch
        return ahead if abs(ahead) > TOLERANCE else 0.0

    def correct(self, headers: MutableMapping[str, Any], names: Collection[str]) -> None:
        """Tell these times of a message by the shared clock; they were counted from now by this machine's."""
        ahead = self.ahead()
        for name in names:
            if ahead and isinstance(headers.get(name), str):
                told = datetime.fromisoformat(headers[name])
                headers[name] = (told - timedelta(seconds=ahead)).isoformat()

    def _ask(self) -> None:
        """Threads that need it at the same time all ask: none of them goes on without the answer."""
        before = self._monotonic()
        try:
            seconds, microseconds = self._redis.time()
        except RedisError:
            pause = _ASK_FIRST_AGAIN_AFTER if self._epoch is None else _ASK_AGAIN_AFTER
            self._ask_at = self._monotonic() + pause
            return
        after = self._monotonic()
        self._epoch = seconds + microseconds / 1e6 - (before + after) / 2
        self._ask_at = after + _GOOD_FOR

    @cached_property
    def _redis(self) -> Redis:
        seconds = self._settings.timeout.total_seconds()
        once = Retry(NoBackoff(), 0)  # runs wait for it
        return Redis.from_url(
            self._settings.redis_url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=once
        )


def counted_from_now(options: Mapping[str, Any]) -> frozenset[str]:
    """Which times of a message are given to `apply_async` as seconds from now, and not as times of day.

    >>> counted_from_now({"countdown": 10, "expires": datetime(2026, 12, 1)})
    frozenset({'eta'})
    """
    names = set()
    if options.get("countdown") is not None and options.get("eta") is None:
        names.add("eta")
    if isinstance(options.get("expires"), (int, float)):
        names.add("expires")
    return frozenset(names)
