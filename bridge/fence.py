"""The fence: an execution that has lost its lease learns of it, so that two of one run do not go on.

A worker that was paused, or cut off from Redis, for longer than the lease is taken for dead and its runs
go on elsewhere. What it writes afterwards is refused, as it is of an older attempt; here the body is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final, Protocol

from celery.exceptions import Ignore
from redis import Redis, RedisError

from bridge.errors import TaskcastError
from bridge.settings import BridgeSettings

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the leases of runs that report."""


class LeaseLost(TaskcastError, Ignore):
    """This attempt was taken for dead, and its run goes on elsewhere; raised by its next `progress()`.

    To Celery it is an `Ignore`: the attempt ends without a result, as the other one will have it.
    """


class Leased(Protocol):
    """A run, as far as its lease is concerned."""

    holder: str | None
    lease_lost: bool


class Fence:
    """Looks whether the executions of this process still hold their leases."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._runs = f"{settings.outbox.prefix}:limits:run:"

    @cached_property
    def _redis(self) -> Redis:
        limits = self._settings.limits
        seconds = limits.timeout.total_seconds()
        url = limits.redis_url or self._settings.outbox.redis_url
        return Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds)

    def look(self, runs: Iterable[Leased]) -> None:
        """Mark those whose lease is lost; none when Redis does not tell."""
        leased = [run for run in runs if run.holder]
        if not leased:
            return
        pipe = self._redis.pipeline(transaction=False)
        for run in leased:
            pipe.hmget(f"{self._runs}{_member(run.holder)}", "state", "holder")
        try:
            answers: list[Any] = pipe.execute()
        except RedisError:
            return
        for run, (state, holder) in zip(leased, answers, strict=True):
            if state is not None and (state, holder) != (b"held", (run.holder or "").encode()):
                run.lease_lost = True


def _member(holder: str | None) -> str:
    return (holder or "").rsplit("#", 1)[0]
