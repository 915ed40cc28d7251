"""The limits' parts in one worker's main process, made for each other, from its start to its end."""

from __future__ import annotations

import atexit
import os
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from redis import RedisError

from bridge.limits.admission import Admission
from bridge.limits.broker import Broker
from bridge.limits.custody import Custody
from bridge.limits.endings import Endings
from bridge.limits.leases import Leases
from bridge.limits.lifeline import Lifeline
from bridge.limits.link import Link
from bridge.limits.pacer import Action, Pacer
from bridge.limits.positions import Positions
from bridge.limits.revocation import watch_revocations
from bridge.worker.pool import (
    remember_what_executes,
    stop_out_of_handlers,
    stop_what_was_given,
    wait_for_what_executes,
)

if TYPE_CHECKING:
    from bridge.extension import Bridge


class Gatekeeper:
    """Made before the pool starts, opened when the consumer is ready, closed when the pool is down."""

    def __init__(self, bridge: Bridge, hostname: str) -> None:
        self._pid = os.getpid()
        actions: SimpleQueue[Action | None] = SimpleQueue()
        link = self._link = Link(bridge.settings, hostname, bridge.declared_values, actions.put)
        broker = self._broker = Broker(bridge.app)
        endings = self._endings = Endings(bridge, link, broker)
        self._admission = Admission(bridge, link, broker, Leases(bridge, link, broker), endings)
        self._custody = Custody(bridge.app, link.redis, link.scripts.root, link.worker)
        lease = link.settings.lease / 2  # as long again a silent worker is only suspected
        self._lifeline = Lifeline(link.url, f"{link.scripts.root}workers", link.worker, lease)
        self._pacer = Pacer(
            link, self._admission, endings, self._custody, self._lifeline, _positions(bridge, link), actions,
            self._is_attached,
        )  # fmt: skip
        self._consumer: Any = None
        self._attached = self._is_attaching = self._is_closed = False
        self._lifeline.start()
        # A cold shutdown sends no signal at its end. What it left would count as the death of its runs.
        atexit.register(self.close)

    @property
    def admission(self) -> Admission | None:
        """The admission, in the main process; its forked children have none."""
        return self._admission if os.getpid() == self._pid else None

    def open(self, consumer: Any) -> None:
        """Tell what is declared, and begin to let runs in."""
        for part in (self._admission, self._endings):
            part.attach(consumer)
        if not consumer.pool.uses_semaphore:  # runs execute in this process: forks of its own are theirs
            self._lifeline.keep_from_forks()
        self._consumer = consumer
        self._attach()
        remember_what_executes(consumer.pool, self._admission.leases.leave_unstarted)
        stop_out_of_handlers(consumer.controller)
        stop_what_was_given(consumer)
        wait_for_what_executes(consumer.controller)
        watch_revocations(self._endings, self._link)
        self._pacer.start()

    def _attach(self) -> None:
        """In the consumer's loop: whatever needs the limits' Redis before the first run may ask."""
        link, self._is_attaching = self._link, False
        try:
            self._custody.attach(self._consumer, lease=link.settings.lease)
            self._broker.attach(self._consumer, link.redis)
            link.declare()
        except RedisError as error:
            link.lost(error)
        else:
            self._attached = True

    def _is_attached(self) -> bool:
        """For the pacer: whether runs may ask; seen to once Redis answers, if it did not at the start."""
        if not self._attached and not self._is_attaching:
            self._link.scripts.epoch()  # raises while Redis is still away
            self._is_attaching = True
            self._consumer.call_soon(self._attach)
        return self._attached

    def in_pool_process(self) -> None:
        """In a forked child of the pool."""
        self._lifeline.in_pool_process()

    def close(self) -> None:
        """Free what is held and leave; once."""
        atexit.unregister(self.close)
        if self.admission is not None and not self._is_closed:
            self._is_closed = True
            self._pacer.stop()
            self._lifeline.stop()


def open_when_ready(worker: Any, gatekeeper: Gatekeeper) -> None:
    """Open with the consumer; `worker_ready` comes of Celery's program only, not of its test fixtures."""
    ready = worker.ready_callback

    def opening(consumer: Any) -> None:
        try:
            gatekeeper.open(consumer)
        except Exception:
            consumer.init_callback = opening  # Celery asks once, and may go on with another connection
            raise
        _close_at_end(worker.blueprint, gatekeeper)
        ready(consumer)

    worker.ready_callback = opening


def _close_at_end(blueprint: Any, gatekeeper: Gatekeeper) -> None:
    """Close with the last part of the worker; `worker_shutdown` comes of a warm shutdown only."""
    stopped = blueprint.on_stopped

    def closing() -> None:
        try:
            stopped()
        finally:
            gatekeeper.close()

    blueprint.on_stopped = closing


def _positions(bridge: Bridge, link: Link) -> Positions:
    return Positions(
        link.scripts,
        lambda root, patch: bridge.appender.append([(root, patch)]),
        link.settings.positions_per_second,
        time.time,
    )
