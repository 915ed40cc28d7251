"""Waiting longer and longer while the other side is away, and saying so without flooding the log."""

from __future__ import annotations

import logging
import random
import time
from datetime import timedelta

log = logging.getLogger(__name__)

_FIRST = 0.25
_REMIND_AFTER = 60.0


class Outage:
    """The present outage of one service, if any: its delays, a log line at each end and every minute."""

    def __init__(self, service: str, consequence: str, max_delay: timedelta) -> None:
        self._service, self._consequence = service, consequence
        self._max = max_delay.total_seconds()
        self._failures = 0
        self._since = self._said_at = 0.0
        self._reason = ""

    def __bool__(self) -> bool:
        return self._failures > 0

    def failed(self, error: Exception) -> float:
        """Note a failure; returns the seconds to wait, growing to the maximum, with jitter.

        What the other side asked for (`retry_after` of the error) is never cut short.
        """
        reason = str(error)
        now = time.monotonic()
        if not self._failures:
            self._since = now
        if reason != self._reason or now - self._said_at > _REMIND_AFTER:
            log.error("%s: %s; %s", self._service, reason, self._consequence)
            self._reason, self._said_at = reason, now
        delay = min(self._max, _FIRST * 2.0 ** min(self._failures, 30))
        self._failures += 1
        asked: float = getattr(error, "retry_after", 0.0)
        return max(delay * random.uniform(0.5, 1.0), asked * random.uniform(1.0, 1.1))

    def healed(self) -> None:
        """Note a success."""
        if self._failures:
            seconds = time.monotonic() - self._since
            log.warning("%s is back after %.1f s and %d attempts", self._service, seconds, self._failures)
            self._failures, self._reason = 0, ""
