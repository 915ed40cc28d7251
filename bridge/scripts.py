"""The Lua commands of the bridge process, one typed function each; nobody else sees KEYS and ARGV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript

_REQUIRES: Final = re.compile(r"^-- requires (.+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of a command, behind the shared parts that its header requires."""
    command = files("bridge").joinpath("lua", f"{name}.lua").read_text()
    required = _REQUIRES.search(command)
    parts = [source(part) for part in required[1].split(", ")] if required else []
    return "\n".join([*parts, command])


def text(answer: bytes | str) -> str:
    """A word of Redis' answer, whether its client decodes or not."""
    return answer.decode() if isinstance(answer, bytes) else answer


class LeaseScripts:
    """Leases of partitions among replicas."""

    def __init__(self, redis: Redis) -> None:
        self._take, self._renew, self._release, self._join = (
            _registered(redis, name)
            for name in ("take_lease", "renew_leases", "release_leases", "join_replicas")
        )

    async def take(self, key: str, token: str, lease: timedelta) -> bool:
        """Take a lease for `token`; whether it was free."""
        return bool(await self._take(keys=[key], args=[token, milliseconds(lease)]) == 1)

    async def renew(self, keys: Sequence[str], token: str, lease: timedelta) -> list[bool]:
        """Renew the leases held with `token`; for each key, whether it is still held."""
        if not keys:
            return []
        return [held == 1 for held in await self._renew(keys=keys, args=[token, milliseconds(lease)])]

    async def release(self, keys: Sequence[str], token: str) -> int:
        """Give the leases back that are held with `token`; returns how many."""
        return int(await self._release(keys=keys, args=[token])) if keys else 0

    async def join(self, key: str, replica: str, lease: timedelta) -> int:
        """Tell that `replica` lives; returns how many do."""
        return int(await self._join(keys=[key], args=[replica, milliseconds(lease)]))


class SettleScript:
    """Forgetting entries of the outbox that are done with."""

    def __init__(self, redis: Redis, group: str, dead: str, dead_kept: int) -> None:
        self._settle = _registered(redis, "settle_entries")
        self._group, self._dead, self._dead_kept = group, dead, dead_kept

    async def settle(
        self,
        pipe: Pipeline,
        stream: str,
        unsent_key: str,
        ids: Sequence[str],
        unsent: Sequence[str],
        dead: Sequence[Mapping[str, Any]],
    ) -> None:
        """Once `pipe` is executed: forget the entries `ids`, note the runs `unsent`, keep the `dead`.

        All dead entries have the same fields.
        """
        fields = [part for each in dead for pair in each.items() for part in pair]
        width = len(fields) // len(dead) if dead else 1
        args = [self._group, self._dead_kept, len(ids), *ids, len(unsent), *unsent, width, *fields]
        await self._settle(keys=[stream, unsent_key, self._dead], args=args, client=pipe)


def milliseconds(time: timedelta) -> int:
    """The time as Redis takes it."""
    return max(1, int(time.total_seconds() * 1000))


def _registered(redis: Redis, name: str) -> AsyncScript:
    script: AsyncScript = redis.register_script(source(name))
    return script
