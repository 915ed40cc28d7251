"""Celery with a clock that is wrong: `python -m tests.acceptance.restarts.offset -3600 -A ...`, in seconds.

What asks Python for the time of day gets the wrong one; waiting and `time.monotonic` are as ever.
"""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any


def set_clock(seconds: float) -> None:
    """Make the time of day wrong by so much, for all that is imported from now on."""
    true_time, true_ns, true = time.time, time.time_ns, datetime.datetime
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_ns() + int(seconds * 1e9)

    class OfAny(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, true)

    class Wrong(true, metaclass=OfAny):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    datetime.datetime = Wrong  # type: ignore[misc]


if __name__ == "__main__":
    set_clock(float(sys.argv.pop(1)))
    from celery.__main__ import main

    main()
