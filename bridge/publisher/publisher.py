"""The bridge process: read, merge, write, broadcast, acknowledge; every step may be repeated safely."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.backoff import Outage
from bridge.broadcast import Broadcaster
from bridge.errors import SupabaseUnavailable
from bridge.messages import Message, current_messages, messages_for
from bridge.publisher.counters import Counters
from bridge.publisher.partitions import Partitions
from bridge.publisher.reader import Batch, OutboxReader
from bridge.publisher.sender import Sender
from bridge.publisher.waiting import Pending
from bridge.publisher.writer import WAITED_OUT, Writer
from bridge.reaper.reaper import Reaper
from bridge.rows import Mirrored, Rows
from bridge.settings import BridgeSettings

log = logging.getLogger(__package__)

_PATIENCE: Final = 0.25  # seconds that a pass waits for its broadcasts before it goes on without them
_REPORT_EVERY: Final = 60.0
_REAP_EVERY: Final = 1.0
_MEASURE_EVERY: Final = 1.0
_REMINDERS: Final = 200
_REMIND_BELOW: Final = 500


class Publisher:
    """One replica. `run()` goes on until `stop()`; any number of replicas share the partitions."""

    def __init__(
        self,
        settings: BridgeSettings,
        redis: Redis,
        rows: Rows,
        broadcaster: Broadcaster,
        reaper: Reaper | None = None,
    ) -> None:
        outbox, own = settings.outbox, settings.publisher
        self._settings, self._rows, self._reaper = settings, rows, reaper
        self._partitions = Partitions(redis, outbox.prefix, outbox.partitions, own.lease)
        self._read: frozenset[int] = frozenset()
        self._shared_by = 1
        self._reader = OutboxReader(redis, outbox.prefix, own.batch, replica=_replica())
        self._writer = Writer(rows, own.batch, own.max_backoff)
        self._sender = Sender(broadcaster, settings.broadcast, self._forget_unsent, own.max_backoff)
        self._redis_outage = Outage("redis", "workers keep their events meanwhile", own.max_backoff)
        self._unsent_lock = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._counters = Counters()

    def stop(self) -> None:
        """Finish the present pass and end."""
        self._stopping.set()

    def stats(self) -> dict[str, Any]:
        """Counters and gauges by name."""
        return {
            **self._counters.stats(),
            "messages": self._sender.messages,
            "refused": self._sender.refused,
            "waiting": len(self._sender.waiting),
            "partitions": sorted(self._partitions.owned),
            "replicas": self._partitions.replicas,
            **(self._reaper.stats() if self._reaper is not None else {}),
        }

    def outages(self) -> dict[str, bool]:
        """Which of the services the bridge needs are away now."""
        return {
            "redis": bool(self._redis_outage),
            "rows": bool(self._writer.outage),
            "realtime": bool(self._sender.outage),
        }

    async def run(self) -> None:
        """Publish until stopped.

        Raises:
            KeyRefused, SchemaMissing: at start only; later both are waited out, loudly.
        """
        await self._until_stopping(self._ready(), grace=0)
        background = [asyncio.create_task(work) for work in self._background()]
        try:
            await self._passes(background)
        finally:
            self.stop()
            await _end(background)
            with suppress(RedisError):
                await self._partitions.release()
                if self._reaper is not None:
                    await self._reaper.release()

    def _background(self) -> Iterator[Coroutine[Any, Any, None]]:
        yield self._sender.run()
        yield self._repeat(self._beat, self._settings.publisher.lease.total_seconds() / 3)
        yield self._repeat(self._remind, 0.5)
        yield self._repeat(self._measure, _MEASURE_EVERY)
        yield self._repeat(self._report, _REPORT_EVERY)
        if self._reaper is not None:
            yield self._repeat(self._reaper.beat, _REAP_EVERY)

    async def _ready(self) -> None:
        outage = Outage("supabase", "the bridge waits for it", self._settings.publisher.max_backoff)
        while True:
            try:
                await self._rows.check()
            except SupabaseUnavailable as error:
                await asyncio.sleep(outage.failed(error))
            else:
                return outage.healed()

    async def _passes(self, background: Sequence[asyncio.Task[None]]) -> None:
        grace = self._settings.publisher.request_timeout.total_seconds()
        while not self._stopping.is_set():
            for task in background:
                if task.done():
                    task.result()
            try:
                await self._partitions.let_go()
                if not self._partitions.owned:
                    await self._pause(0.05)
                    continue
                await self._until_stopping(self._pass(), grace)
                self._redis_outage.healed()
            except RedisError as error:
                self._reader.rewind()
                await self._pause(self._redis_outage.failed(error))

    async def _pass(self) -> None:
        self._reader.rewind(self._partitions.taken())
        batch = await self._reader.read(self._partitions.owned)
        if not batch.entries:
            self._sender.hold(())
            return
        results = await self._writer.write(batch)
        self._sender.hold(await self._reader.behind(batch))
        late = await self._sender.offer(self._addressed(batch, results), _PATIENCE)
        await self._acknowledge(batch, late, {each.run_id for each in results if each.has_ended})
        self._counters.count(batch, results)

    @staticmethod
    def _addressed(batch: Batch, results: Sequence[Mirrored]) -> list[tuple[Message, int]]:
        # A parent lies in its children's partition.
        partitions = batch.partitions
        for result in results:
            for parent in result.parents:
                partitions.setdefault(parent.run_id, partitions[result.run_id])
        return [(message, partitions[message.run_id]) for message in messages_for(results)]

    async def _acknowledge(self, batch: Batch, late: Sequence[Pending], ended: Iterable[str]) -> None:
        async with self._unsent_lock:
            waiting = [pending for pending in late if pending.has_snapshot]
            unsent: dict[int, list[str]] = {}
            for pending in waiting:
                unsent.setdefault(pending.partition, []).append(pending.run_id)
            await self._reader.acknowledge(batch, unsent, ended)
            for pending in waiting:
                pending.stored = True

    async def _forget_unsent(self, sent: Sequence[Pending]) -> None:
        async with self._unsent_lock:
            again = {each.run_id for each in self._sender.waiting.unsent(each.run_id for each in sent)}
            gone: dict[int, list[str]] = {}
            for pending in sent:
                if pending.run_id not in again:
                    pending.stored = False
                    gone.setdefault(pending.partition, []).append(pending.run_id)
            with suppress(RedisError):  # what stays in the set is broadcast once more, which is harmless
                for partition, run_ids in gone.items():
                    await self._reader.sent(partition, run_ids)

    async def _beat(self) -> None:
        before, self._read = self._read, await self._partitions.beat()
        shared_by, self._shared_by = self._shared_by, self._partitions.replicas
        self._sender.share(self._shared_by)
        for partition in before - self._read:
            self._sender.waiting.drop(partition)
        if (self._read, self._shared_by) != (before, shared_by):
            log.info("reading partitions %s; replicas: %d", sorted(self._read), self._shared_by)

    async def _remind(self) -> None:
        """Bring back runs whose last snapshot an outage, the budget or a crash held back."""
        for partition in self._partitions.owned:
            if self._writer.outage or self._sender.waiting.ready > _REMIND_BELOW:
                return
            ids = await self._reader.unsent(partition, _REMINDERS)
            missing = [run_id for run_id in ids if run_id not in self._sender.waiting]
            if missing:
                await self._remind_of(partition, missing)

    async def _remind_of(self, partition: int, run_ids: Sequence[str]) -> None:
        try:
            found = await self._rows.snapshots(run_ids)
        except WAITED_OUT as error:
            await self._pause(getattr(error, "retry_after", 0.0))
            return
        listened = [current for current in found if current.channel]
        for current in listened:
            self._sender.remind(current_messages(current), partition)
        silent = set(run_ids).difference(current.run_id for current in listened)
        if silent:
            await self._reader.sent(partition, sorted(silent))

    async def _report(self) -> None:
        if self._counters.passes:
            log.info("bridge: %s", " ".join(f"{name}={value}" for name, value in self.stats().items()))

    async def _measure(self) -> None:
        outbox = self._settings.outbox
        lengths, dead = await self._reader.gauge(outbox.partitions)
        self._counters.measure(lengths, outbox.max_length, dead)

    async def _repeat(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        # Not `while True`: a Redis call that is cancelled may swallow the cancellation.
        while not self._stopping.is_set():
            try:
                await work()
            except RedisError as error:
                self._redis_outage.failed(error)
            await self._pause(every)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _until_stopping(self, work: Awaitable[None], grace: float) -> None:
        """Finish `work`; asked to stop, leave it after `grace` seconds: another replica repeats it."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await asyncio.wait({task}, timeout=grace)
        finally:
            stopping.cancel()
            await _end([task])
        if task.done() and not task.cancelled():
            task.result()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: a Redis call may swallow a cancellation."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)


def _replica() -> str:
    """What tells operators which process it was."""
    return f"{socket.gethostname()}:{os.getpid()}"
