"""The fence: an execution that has lost its lease learns of it, so that two of one run do not go on.

A worker that was paused, or cut off from Redis, for longer than the lease is taken for dead and its runs
go on elsewhere. What it writes afterwards is refused, as it is of an older attempt; here the body is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final, Protocol

from celery.exceptions import Ignore
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.errors import TaskcastError
from bridge.settings import BridgeSettings

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the leases of runs that report."""

_OVER: Final = (b"done", b"ending")


class LeaseLost(TaskcastError, Ignore):
    """This attempt was taken for dead, and its run goes on elsewhere; raised by its next `progress()`.

    To Celery it is an `Ignore`: the attempt ends without a result, as the other one will have it.
    """


class Leased(Protocol):
    """A run, as far as its lease is concerned."""

    run_id: str
    holder: str | None
    lease_lost: bool
    began: float  # by the monotonic clock


class Fence:
    """Looks whether the executions of this process still hold their leases."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._least = settings.limits.lease.total_seconds() / 2
        self._runs = f"{settings.outbox.prefix}:limits:run:"

    @cached_property
    def _redis(self) -> Redis:
        seconds = self._settings.limits.timeout.total_seconds()
        url = self._settings.limits_redis_url
        once = Retry(NoBackoff(), 0)  # a body waits for it when it ends
        return Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=once)

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
            is_others = state == b"held" and holder != (run.holder or "").encode()
            if is_others or state in _OVER:  # else its worker, which lives, takes the lease back
                run.lease_lost = True

    def refuse_lost(self, run: Leased) -> None:
        """Before an attempt says what came of it: that counts for nothing when its lease is lost.

        Raises:
            LeaseLost: the worker was taken for dead, and the run goes on elsewhere.
        """
        if time.monotonic() - run.began > self._least:  # else nobody can have taken it for dead
            self.look([run])
        if run.lease_lost:
            raise lease_lost(run.run_id)


def lease_lost(run_id: str) -> LeaseLost:
    return LeaseLost(f"run {run_id} goes on elsewhere; this attempt has lost its lease")


def _member(holder: str | None) -> str:
    return (holder or "").rsplit("#", 1)[0]
