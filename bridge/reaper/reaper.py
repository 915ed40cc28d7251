"""The reaper: mends rows that tell of runs what is not so, after faults that left nobody to tell of them.

Workers tell of their runs, and of the runs of dead workers. Nobody tells when a message is lost, when Redis
has lost what it knew, or when no worker lives. Of all bridge processes one looks, once a lease: at rows that
nothing was heard of for two leases, and at where their runs are. What it finds twice, two leases apart, with
nothing heard in between, it tells through the outbox, for the version of the row that it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from kombu.exceptions import OperationalError
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from bridge import lifecycle
from bridge.backoff import Outage
from bridge.extension import Bridge
from bridge.limits.custody import broker_in_time, restore_orphans
from bridge.limits.scripts import LimitScripts
from bridge.outbox import OutboxUnavailable
from bridge.publisher.writer import WAITED_OUT
from bridge.reaper.mending import Mending
from bridge.reaper.quiet import QuietRows, QuietRun, Ticket
from bridge.reaper.verdicts import Suspicions, Verdict, verdict_on
from bridge.reaper.whereabouts import Lookout, Whereabouts
from bridge.scripts import LeaseScripts

log = logging.getLogger(__name__)

LEASES_QUIET: Final = 2
LEASES_APART: Final = 2
_IDLE: Final = 5  # times as long as a look took, so that looking at very many runs leaves room for writing

_OUTAGES: Final = (*WAITED_OUT, OperationalError, RedisError, OutboxUnavailable)


class Reaper:
    """One of these is live in a deployment; `beat()` once a second."""

    def __init__(self, bridge: Bridge, rows: QuietRows, redis: AsyncRedis) -> None:
        settings = bridge.settings
        self._bridge, self._rows = bridge, rows
        self._lease = settings.limits.lease
        seconds = settings.limits.timeout.total_seconds()
        self._limits = Redis.from_url(
            settings.limits_redis_url,
            socket_timeout=seconds, socket_connect_timeout=seconds,
        )  # fmt: skip
        self._scripts = LimitScripts(self._limits, settings.outbox.prefix)
        self._lookout = Lookout(bridge.app, self._limits, self._scripts.root)
        self._mending = Mending(bridge, self._lookout)
        self._key, self._token = f"{settings.outbox.prefix}:reaper", secrets.token_hex(8)
        self._live = LeaseScripts(redis)
        apart = LEASES_APART * self._lease.total_seconds()
        self._runs: Suspicions[str, tuple[int, Verdict]] = Suspicions(apart)
        self._tickets: Suspicions[Ticket, bool] = Suspicions(apart)
        self._outage = Outage("reaper", "rows of lost runs stay as they are", settings.publisher.max_backoff)
        self._next_at = -math.inf
        self._queues: set[str] = set()
        self._has_warned = False
        self.counts: Counter[str] = Counter()

    async def beat(self) -> None:
        """Bury dead workers where no worker lives to do it; look at the rows when it is time."""
        if not await self._is_live():
            return
        try:
            await asyncio.to_thread(self._bury)
            if time.monotonic() >= self._next_at:
                began = time.monotonic()
                await self._look()
                self._outage.healed()
                ended = time.monotonic()
                self._next_at = ended + max(self._lease.total_seconds(), _IDLE * (ended - began))
        except _OUTAGES as error:
            self._next_at = time.monotonic() + self._outage.failed(error)
        except Exception:
            log.exception("a round of the reaper failed; it goes on")
            self._next_at = time.monotonic() + self._lease.total_seconds()

    async def release(self) -> None:
        """Let another process be the reaper at once."""
        await self._live.release([self._key], self._token)

    async def _is_live(self) -> bool:
        [is_held] = await self._live.renew([self._key], self._token, self._lease)
        return is_held or await self._live.take(self._key, self._token, self._lease)

    # Where no worker lives

    def _bury(self) -> None:
        """What living workers do for the dead, once nobody is left to do it."""
        root = self._scripts.root
        seconds, microseconds = self._limits.time()
        now = seconds * 1000 + microseconds // 1000
        if self._limits.zcount(f"{root}workers", now, "+inf") or not self._limits.zcard(f"{root}workers"):
            return
        swept = self._scripts.sweep(f"reaper!{self._token}", self._lease)
        if swept.buried:
            log.warning("%d workers are gone, and none is left", swept.buried)
            self._restore_orphans()
        for meta in swept.died:
            self._bridge.signals.told_of(meta, lifecycle.queued_again())

    def _restore_orphans(self) -> None:
        root = self._scripts.root
        with broker_in_time(self._bridge.app) as broker:
            if broker.transport.driver_type == "redis":
                restore_orphans(broker, self._limits, f"{root}unacked", f"{root}workers", self._lease)

    # Looking

    async def _look(self) -> None:
        seen = await asyncio.to_thread(self._lookout.look, frozenset(self._queues))
        if not seen.knows_workers:
            self._warn()
        await self._look_at_runs(seen)
        await self._look_at_tickets(seen)

    async def _look_at_runs(self, seen: Whereabouts) -> None:
        found: dict[str, tuple[int, Verdict]] = {}
        wrong: dict[str, QuietRun] = {}
        async for run in self._rows.runs():
            self._queues.add(run.queue)
            verdict = verdict_on(run, seen, self._mending.comes_back(run))
            if verdict is not None:
                found[run.run_id], wrong[run.run_id] = (run.version, verdict), run
        counting = self._runs.look(found, time.monotonic())
        await asyncio.to_thread(self._mend, {wrong[each]: found[each][1] for each in counting}, counting)

    def _mend(self, wrong: Mapping[QuietRun, Verdict], times: Mapping[str, int]) -> None:
        for run, verdict in wrong.items():
            self._mending.mend(run, verdict)
            if not times[run.run_id]:
                self.counts[verdict.name.lower()] += 1
                log.warning("run %s (%.100s) is %s, but %s", run.run_id, run.task, run.status, verdict.value)

    async def _look_at_tickets(self, seen: Whereabouts) -> None:
        claimed = await self._rows.tickets()
        lost = {each: True for each in claimed if seen.knows_messages and seen.of(each.ticket_id) is None}
        counting = self._tickets.look(lost, time.monotonic())
        if counting:
            returned = await self._rows.return_tickets(list(counting))
            self.counts["tickets"] += returned
            log.warning("%d tickets were claimed and never became runs; they are pending again", returned)

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "no worker has told this Redis what it runs, so no row is judged: "
                "is LIMITS_REDIS_URL the same for workers and bridges?"
            )

    def stats(self) -> dict[str, Any]:
        """How many rows were mended, by what was wrong."""
        return {f"reaped_{name}": count for name, count in sorted(self.counts.items())}
