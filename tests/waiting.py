"""Waiting for a condition, never for the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds until a test gives up waiting, on a machine that is slow and has other things to do."""

SLACK = 5.0
"""Seconds that such a machine may add to a promised time, which is measured from the clocks of the events."""


def wait_until(
    predicate: Callable[[], T],
    description: str,
    timeout: float = PATIENCE,
    every: float = 0.02,
    tell: Callable[[], str] = str,
) -> T:
    """Return the first truthy value of `predicate`, or fail with what was waited for and last seen, and
    with what there is to `tell` then.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s until {description}; last seen: {value!r}{tell()}")
        time.sleep(every)
    return value


async def eventually(
    predicate: Callable[[], T | Awaitable[T]],
    description: str,
    timeout: float = PATIENCE,
    every: float = 0.02,
) -> T:
    """The twin of `wait_until` for coroutines; `predicate` may be either kind."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s until {description}; last seen: {value!r}")
        await asyncio.sleep(every)
