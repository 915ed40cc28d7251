"""Who reads which partition: leases in Redis, divided fairly among the live replicas."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from datetime import timedelta

from redis.asyncio import Redis

from bridge.scripts import LeaseScripts


class Partitions:
    """The partitions this replica holds; `beat()` keeps them, `release()` gives them back.

    A lease that is not renewed runs out, and the next beat of another replica takes the partition over.
    One that is above the fair share is read no more, and given back with `let_go()`, once no read of it is
    on its way: two readers at a time could write a run's events in the wrong order.
    """

    def __init__(self, redis: Redis, prefix: str, count: int, lease: timedelta) -> None:
        self._redis, self._prefix, self._count, self._lease = redis, prefix, count, lease
        self._scripts = LeaseScripts(redis)
        self._token = secrets.token_hex(8)
        self._held: frozenset[int] = frozenset()
        self._leaving: frozenset[int] = frozenset()
        self._taken_since: frozenset[int] = frozenset()
        self._until = -math.inf
        self._lock = asyncio.Lock()
        self.replicas = 1

    @property
    def owned(self) -> frozenset[int]:
        """Those to read; none once the leases may have run out, as when this process was stopped."""
        return self._held - self._leaving if time.monotonic() < self._until else frozenset()

    async def beat(self) -> frozenset[int]:
        """Renew, leave what is above the fair share, take what is free below it; returns what to read."""
        async with self._lock:
            asked_at = time.monotonic()
            self.replicas = await self._scripts.join(f"{self._prefix}:replicas", self._token, self._lease)
            held = await self._renewed()
            share = -(-self._count // self.replicas)
            kept = sorted(held, key=lambda each: (each in self._leaving, each))[:share]
            taken = await self._taken(share - len(kept), held)
            self._held, self._leaving = held | taken, held.difference(kept)
            self._taken_since |= taken
            self._until = asked_at + self._lease.total_seconds()
            return self.owned

    def taken(self) -> frozenset[int]:
        """Those that were taken since this was last asked: others may have read them in between."""
        taken, self._taken_since = self._taken_since, frozenset()
        return taken

    async def let_go(self) -> None:
        """Give back what is left; to be called while nothing is being read."""
        if self._leaving:
            async with self._lock:
                await self._scripts.release([self._key(each) for each in self._leaving], self._token)
                self._held, self._leaving = self._held - self._leaving, frozenset()

    async def release(self) -> None:
        """Give everything back, so that nobody waits for the leases to run out."""
        await self._scripts.release([self._key(each) for each in sorted(self._held)], self._token)
        await self._redis.zrem(f"{self._prefix}:replicas", self._token)
        self._held = self._leaving = frozenset()

    async def _renewed(self) -> frozenset[int]:
        held = sorted(self._held)
        renewed = await self._scripts.renew([self._key(each) for each in held], self._token, self._lease)
        return frozenset(each for each, still in zip(held, renewed, strict=True) if still)

    async def _taken(self, wanted: int, held: frozenset[int]) -> frozenset[int]:
        others = [each for each in range(self._count) if each not in held]
        random.shuffle(others)
        taken: set[int] = set()
        for partition in others:
            if len(taken) >= wanted:
                break
            if await self._scripts.take(self._key(partition), self._token, self._lease):
                taken.add(partition)
        return frozenset(taken)

    def _key(self, partition: int) -> str:
        return f"{self._prefix}:partition:{partition}"
