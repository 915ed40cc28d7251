"""What a tenant may do, and the counters that say when it did more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

#: The server's grace on the payload limit, for the envelope around a payload.
PAYLOAD_GRACE_BYTES = 500

ROLLING_WINDOW_SECONDS = 60


@dataclass(frozen=True)
class TenantLimits:
    """The limits of the one tenant that the stand-in serves; the defaults are a new tenant's.

    The real server holds the answer to a refused handshake back for 2 s and to a refused join for 5 s.
    `error_delay` and `join_refusal_delay` set these; they are zero here, since tests should not wait.

    >>> TenantLimits(events_per_second=2_500, join_refusal_delay=timedelta(seconds=5))
    """

    events_per_second: int = 100
    joins_per_second: int = 100
    users: int = 200
    channels_per_client: int = 100
    payload_kb: int = 3_000
    presence_events_per_second: int = 1_000
    presence_calls: int = 5
    presence_window: timedelta = timedelta(seconds=30)
    private_only: bool = False
    suspended: bool = False
    error_delay: timedelta = timedelta(0)
    join_refusal_delay: timedelta = timedelta(0)
    idle_timeout: timedelta = timedelta(seconds=60)

    @property
    def payload_bytes(self) -> int:
        """The largest payload in bytes."""
        return self.payload_kb * 1_000 + PAYLOAD_GRACE_BYTES


class RollingRate:
    """Events per second, averaged over the complete seconds of the last minute in which it ran.

    Times are seconds of any monotonic clock. The running second does not count yet, so a burst is noticed
    when its second is over, as on the real server.
    """

    def __init__(self) -> None:
        self._seconds: list[int] = []
        self._counting = 0
        self._second: int | None = None
        self._average = 0.0

    def add(self, now: float, count: int = 1) -> None:
        """Count events that happen now."""
        self._turn(now)
        self._counting += count

    def average(self, now: float) -> float:
        """Events per second so far."""
        self._turn(now)
        return self._average

    def _turn(self, now: float) -> None:
        second = int(now)
        if self._second is None:
            self._second = second
        passed = second - self._second
        if passed <= 0:
            return
        if passed > ROLLING_WINDOW_SECONDS:
            self._seconds = []
        else:
            idle = [0] * (passed - 1)
            self._seconds = [*self._seconds, self._counting, *idle][-ROLLING_WINDOW_SECONDS:]
        self._average = sum(self._seconds) / len(self._seconds) if self._seconds else 0.0
        self._counting = 0
        self._second = second


class CallWindow:
    """At most `calls` in a window that starts with its first call."""

    def __init__(self, calls: int, window: timedelta) -> None:
        self._calls, self._seconds = calls, window.total_seconds()
        self._used, self._ends_at = 0, float("-inf")

    def take(self, now: float) -> bool:
        """Use one call; false when none is left in this window."""
        if now > self._ends_at:
            self._used, self._ends_at = 0, now + self._seconds
        if self._used >= self._calls:
            return False
        self._used += 1
        return True
