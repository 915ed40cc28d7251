"""The pacer: a thread of each worker's main process that sees to limits while nothing else happens.

Each beat releases what could not be released, compares the slots held here with what Redis knows, sweeps
(slots of dead workers, lapsed grants, what is due), and, on one worker of them all, reports places in line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from redis import RedisError

from bridge.limits.admission import Admission
from bridge.limits.answers import Swept
from bridge.limits.custody import Custody
from bridge.limits.endings import Endings
from bridge.limits.lifeline import Lifeline
from bridge.limits.link import Link
from bridge.limits.positions import Positions

log = logging.getLogger(__name__)

_LEAST: Final = 0.005
_MOST: Final = 1.0
_DYING: Final = 0.05

Action = Callable[[], object]


class Pacer:
    """Runs from the worker's start to its end."""

    def __init__(
        self,
        link: Link,
        admission: Admission,
        endings: Endings,
        custody: Custody,
        lifeline: Lifeline,
        positions: Positions,
        actions: SimpleQueue[Action | None],
        is_attached: Callable[[], bool],
    ) -> None:
        self._link, self._admission, self._leases, self._endings = link, admission, admission.leases, endings
        self._custody, self._lifeline, self._positions = custody, lifeline, positions
        self._actions, self._is_attached = actions, is_attached
        self._thread = threading.Thread(target=self._run, name="taskcast-pacer", daemon=True)
        self._compared_at = 0.0
        self._reported_at = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5) -> None:
        """End the thread and free what is still held; the pool is down by now."""
        self._actions.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._leases.close()
        self._custody.close()

    def _run(self) -> None:
        next_at = 0.0
        while True:
            with suppress(Empty):
                action = self._actions.get(timeout=max(_LEAST, next_at - time.monotonic()))
                if action is None:
                    return
                self._safely(action)
                if action == self._leases.tell_of_ends and time.monotonic() < next_at:
                    continue  # nothing else has changed, and a busy worker tells of ends all the time
            self._safely(self._keep)
            next_at = time.monotonic() + self._beat_safely()

    def _safely(self, action: Action) -> None:
        try:
            action()
        except Exception:
            log.exception("the limits' pacer failed at %s and goes on", getattr(action, "__name__", "a task"))

    def _keep(self) -> None:
        self._lifeline.ensure()

    def _beat_safely(self) -> float:
        try:
            return self._beat()
        except RedisError as error:
            self._link.lost(error)
        except Exception:
            log.exception("a round of the limits' pacer failed; it goes on")
        return _MOST

    def _beat(self) -> float:
        """One round; returns seconds until the next."""
        link = self._link
        if not self._is_attached():
            return _MOST
        self._leases.settle()
        swept = link.scripts.sweep(link.worker, link.settings.lease)
        self._compare()
        link.found()
        self._admission.ask_again()
        self._act_on(swept)
        if swept.is_pacer:
            self._once_a_second()
        if self._leases.are_dying:
            return _DYING
        return max(_LEAST, min(_MOST, swept.next_in.total_seconds())) if swept.is_pacer else _MOST

    def _act_on(self, swept: Swept) -> None:
        if swept.buried:
            log.warning("%d workers are gone; %d slots are free again", swept.buried, swept.freed)
        if swept.outgoing:
            self._safely(self._leases.publish)
        for ended in swept.ended:
            self._endings.end(ended)
        for meta in swept.died:  # nothing goes on there; the next attempt tells when it does elsewhere
            self._leases.queued_again(meta)

    def _compare(self) -> None:
        """Make Redis know what executes here, and nothing else."""
        every = self._link.settings.lease.total_seconds() / 5
        if time.monotonic() - self._compared_at < every:
            return
        self._compared_at = time.monotonic()
        self._link.declare_if_forgotten()
        self._custody.register()
        self._safely(self._custody.restore_strays)
        self._leases.compare(self._admission.unanswered)

    def _once_a_second(self) -> None:
        """What one worker does for all."""
        if time.monotonic() - self._reported_at >= 1.0:
            self._reported_at = time.monotonic()
            self._positions.report()
            self._safely(self._custody.restore_orphans)
