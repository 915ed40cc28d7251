"""Sending broadcasts within the budget, in the background of the publisher's passes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta

from bridge.backoff import Outage
from bridge.broadcast import BODY_LIMIT, Broadcaster, RateExceeded
from bridge.errors import BatchTooLarge, KeyRefused, MessagesRefused, SupabaseUnavailable
from bridge.messages import Message
from bridge.publisher.budget import TokenBucket
from bridge.publisher.waiting import Pending, Waiting
from bridge.settings import BroadcastSettings

log = logging.getLogger(__package__)

_SHARE_OF_PLAN = 0.9  # the plan's counter and ours do not start their seconds together
_ROOM = 5_000
_LET_GO_EVERY = 5.0
_LEAST_PAUSE = 0.05  # over the budget, requests of many messages instead of many requests


class Sender:
    """Takes messages, sends what the budget allows, merges what has to wait.

    `on_sent` is told of runs whose last snapshot has gone out.
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        settings: BroadcastSettings,
        on_sent: Callable[[Sequence[Pending]], Awaitable[None]],
        max_delay: timedelta,
    ) -> None:
        self._broadcaster, self._settings, self._on_sent = broadcaster, settings, on_sent
        self._cost = 1 + settings.listeners
        self._bucket = TokenBucket(settings.messages_per_second * _SHARE_OF_PLAN)
        self.outage = Outage("realtime", "rows go on; listeners catch up when it is back", max_delay)
        self._limit = settings.batch
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()  # nothing to send, or nothing may be sent now
        self._let_go_at = 0.0
        self.waiting = Waiting()
        self.messages = 0
        self.refused = 0

    def share(self, replicas: int) -> None:
        """Divide the plan's rate among the replicas that live."""
        self._bucket.rate = self._settings.messages_per_second * _SHARE_OF_PLAN / replicas

    async def offer(self, messages: Sequence[tuple[Message, int]], patience: float) -> list[Pending]:
        """Send messages (each with its partition); returns the runs whose snapshot has to wait."""
        runs = dict.fromkeys(message.run_id for message, _ in messages)
        for message, partition in messages:
            self.waiting.add(message, partition)
        if runs and not self.outage:
            self._idle.clear()
            self._wakeup.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), patience)
        self.waiting.settle(runs)
        return self.waiting.unsent(runs)

    def hold(self, partitions: Collection[int]) -> None:
        """Keep back the progress of partitions that are read long after they were written.

        In a long time of catching up, each run's latest is let go now and then, so that bars move.
        """
        now = time.monotonic()
        if not self.waiting.holds:
            self._let_go_at = now
        elif not partitions or now - self._let_go_at > _LET_GO_EVERY:
            partitions = ()
            self._wakeup.set()
        self.waiting.hold(partitions)

    def remind(self, messages: Sequence[Message], partition: int) -> None:
        """Let messages wait for runs that the outbox has among the unsent."""
        for message in messages:
            self.waiting.add(message, partition, stored=True)
        self._wakeup.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            while not self.waiting.ready:
                self._idle.set()
                self.waiting.evict(_ROOM)
                self._wakeup.clear()
                await self._wakeup.wait()
            delay = self._too_early() or await self._send_some()
            if delay:
                self._idle.set()
                self.waiting.evict(_ROOM)
                await asyncio.sleep(delay)

    def _too_early(self) -> float:
        """Seconds to wait for the budget, 0 when what waits can be afforded or makes a full request."""
        enough = min(self.waiting.ready * self._cost, self._bucket.rate * _LEAST_PAUSE)
        return self._bucket.delay(max(enough, self._cost))

    async def _send_some(self) -> float:
        affordable = max(1, int(self._bucket.available() / self._cost))
        messages = self.waiting.peek(min(affordable, self._limit), BODY_LIMIT)
        try:
            await self._broadcaster.send(messages)
        except BatchTooLarge as error:
            return await self._shrink(messages, error)
        except MessagesRefused as refusal:
            await self._drop([messages[place] for place in refusal.positions if place < len(messages)])
            return 0.0
        except (SupabaseUnavailable, KeyRefused) as error:
            if isinstance(error, RateExceeded):
                self._bucket.empty()
            return self.outage.failed(error)
        self.outage.healed()
        self._bucket.take(len(messages) * self._cost)
        self._limit = min(self._settings.batch, self._limit + 1 + self._limit // 8)
        self.messages += len(messages)
        await self._done(messages)
        return 0.0

    async def _shrink(self, messages: Sequence[Message], error: BatchTooLarge) -> float:
        if len(messages) == 1:
            return self.outage.failed(error)
        self._limit = max(1, len(messages) // 2)
        return 0.0

    async def _drop(self, messages: Sequence[Message]) -> None:
        self.refused += len(messages)
        log.error("Realtime refused messages for good: %d; their rows are right", len(messages))
        await self._done(messages)

    async def _done(self, messages: Sequence[Message]) -> None:
        sent = self.waiting.remove(messages)
        if any(pending.stored for pending in sent):
            await self._on_sent([pending for pending in sent if pending.stored])
