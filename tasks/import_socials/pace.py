"""How long a provider asks us to wait: Retry-After and the rate-limit headers of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_EPOCH_FROM = 1_000_000_000
"""A reset above this is a time in seconds since 1970 (Bluesky), below it a number of seconds (Reddit)."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that Retry-After asks for, as a number or as an HTTP date; None where it says nothing."""
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is None and value:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return None if seconds is None else max(seconds, 0.0)


def until_reset(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds until the next request is welcome: 0 while requests remain, else until the reset.

    Mastodon tells the reset as a date, Bluesky in seconds since 1970, Reddit in seconds from now.
    """
    for prefix in ("x-ratelimit-", "ratelimit-"):
        remaining = _number(headers.get(prefix + "remaining", ""))
        if remaining is not None and remaining < 1:
            return max(_seconds_until(headers.get(prefix + "reset", ""), now), 0.0)
    return 0.0


def _seconds_until(reset: str, now: datetime) -> float:
    number = _number(reset)
    if number is not None:
        return number - now.timestamp() if number >= _EPOCH_FROM else number
    try:
        moment = datetime.fromisoformat(reset)
    except ValueError:
        return 0.0
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None
