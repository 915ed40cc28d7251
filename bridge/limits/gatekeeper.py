"""The limits' parts in one worker's main process: admission, keeper, pacer; from its start to its end."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from celery.worker.control import Panel
from redis import RedisError

from bridge.limits.admission import Admission
from bridge.limits.custody import Custody
from bridge.limits.keeper import Keeper
from bridge.limits.pacer import Pacer
from bridge.limits.positions import Positions

if TYPE_CHECKING:
    from bridge.extension import Bridge

log = logging.getLogger(__name__)


class Gatekeeper:
    """Made before the pool starts, opened when the consumer is ready, closed when the pool is down."""

    def __init__(self, bridge: Bridge, hostname: str) -> None:
        self._pid = os.getpid()
        admission = self._admission = Admission(bridge, hostname)
        lease = admission.settings.lease / 2  # as long again a silent worker is only suspected
        self._keeper = Keeper(
            admission.redis_url, f"{admission.scripts.root}workers", admission.worker, lease
        )
        positions = Positions(
            admission.scripts,
            lambda root, patch: bridge.appender.append([(root, patch)]),
            admission.settings.positions_per_second,
            time.time,
        )
        self._custody = Custody(bridge.app, admission.redis, admission.scripts.root, admission.worker)
        self._pacer = Pacer(admission, self._custody, self._keeper, positions)
        self._keeper.start()

    @property
    def admission(self) -> Admission | None:
        """The admission, in the main process; its forked children have none."""
        return self._admission if os.getpid() == self._pid else None

    def open(self, consumer: Any) -> None:
        """Tell what is declared, and begin to let runs in."""
        admission = self._admission
        admission.consumer = consumer
        if not consumer.pool.uses_semaphore:  # runs execute in this process: forks of its own are theirs
            self._keeper.keep_from_forks()
        try:
            self._custody.attach(consumer, lease=admission.settings.lease)
            admission.broker.attach(consumer, admission.redis)
            admission.declare()
            admission.paused = admission.scripts.paused()  # a pause outlasts the worker that saw it begin
        except RedisError as error:
            admission.is_reachable = False
            log.error("the limits' Redis does not answer (%s); limited runs wait", type(error).__name__)
        _withdraw_at_revoke(admission)
        self._pacer.start()

    def in_pool_process(self) -> None:
        """In a forked child of the pool."""
        self._keeper.in_pool_process()

    def close(self) -> None:
        """Free what is held and leave."""
        if self.admission is not None:
            self._pacer.stop()
            self._keeper.stop()


def _withdraw_at_revoke(admission: Admission) -> None:
    """Celery's `revoke` command, which ends waiting runs as well."""
    revoke = Panel.data["revoke"]

    def withdrawing(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        reply = revoke(state, task_id, *args, **kwargs)
        admission.withdraw([task_id] if isinstance(task_id, str) else list(task_id or ()))
        return reply

    Panel.data["revoke"] = withdrawing
