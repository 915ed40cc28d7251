"""Who reads which partition: leases in Redis, divided fairly among the live replicas."""

from __future__ import annotations

import random
import secrets
from datetime import timedelta

from redis.asyncio import Redis

from bridge.scripts import LeaseScripts


class Partitions:
    """The partitions this replica holds; `beat()` keeps them, `release()` gives them back.

    A lease that is not renewed runs out, and the next beat of another replica takes the partition over.
    """

    def __init__(self, redis: Redis, prefix: str, count: int, lease: timedelta) -> None:
        self._redis, self._prefix, self._count, self._lease = redis, prefix, count, lease
        self._scripts = LeaseScripts(redis)
        self._token = secrets.token_hex(8)
        self.owned: frozenset[int] = frozenset()
        self.replicas = 1

    async def beat(self) -> frozenset[int]:
        """Renew, give back what is above the fair share, take what is free below it; returns what is held."""
        self.replicas = await self._scripts.join(f"{self._prefix}:replicas", self._token, self._lease)
        owned = await self._renewed()
        share = -(-self._count // self.replicas)
        surplus = sorted(owned)[share:]
        if surplus:
            await self._scripts.release([self._key(each) for each in surplus], self._token)
        owned = owned.difference(surplus)
        self.owned = owned | await self._taken(share - len(owned))
        return self.owned

    async def release(self) -> None:
        """Give everything back, so that nobody waits for the leases to run out."""
        await self._scripts.release([self._key(each) for each in sorted(self.owned)], self._token)
        await self._redis.zrem(f"{self._prefix}:replicas", self._token)
        self.owned = frozenset()

    async def _renewed(self) -> frozenset[int]:
        held = sorted(self.owned)
        renewed = await self._scripts.renew([self._key(each) for each in held], self._token, self._lease)
        return frozenset(each for each, still in zip(held, renewed, strict=True) if still)

    async def _taken(self, wanted: int) -> frozenset[int]:
        others = [each for each in range(self._count) if each not in self.owned]
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
