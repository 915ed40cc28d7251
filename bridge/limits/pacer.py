"""The pacer: a thread of each worker's main process that sees to limits while nothing else happens.

Each beat releases what could not be released, compares the slots held here with what Redis knows, sweeps
(slots of dead workers, lapsed grants, what is due), and, on one worker of them all, reports places in line.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from redis import RedisError

from bridge.limits.admission import Admission, member_held_by
from bridge.limits.custody import Custody
from bridge.limits.keeper import Keeper
from bridge.limits.positions import Positions
from bridge.limits.scripts import Swept

log = logging.getLogger(__name__)

_LEAST: Final = 0.005
_MOST: Final = 1.0
_PAUSES_EVERY: Final = 0.5
_DYING: Final = 0.05

Action = Callable[[], object]


class Pacer:
    """Runs from the worker's start to its end."""

    def __init__(self, admission: Admission, custody: Custody, keeper: Keeper, positions: Positions) -> None:
        self._admission, self._custody = admission, custody
        self._keeper, self._positions = keeper, positions
        self._actions: SimpleQueue[Action | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="taskcast-pacer", daemon=True)
        self._compared_at = 0.0
        self._looked_at = 0.0
        self._reported_at = 0.0
        self._unknown: set[str] = set()
        admission.later = self._actions.put

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5) -> None:
        """End the thread and free what is still held; the pool is down by now."""
        self._actions.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        for execution in list(self._admission.executing.values()):
            self._admission.leave(execution.request)
        if self._admission.ended:  # nobody else would tell
            self._admission.end_leases()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with suppress(Empty):
                action = self._actions.get(timeout=max(_LEAST, pause))
                if action is None:
                    return
                self._safely(action)
            self._safely(self._keep)
            pause = self._beat_safely()

    def _safely(self, action: Action) -> None:
        try:
            action()
        except Exception:
            log.exception("the limits' pacer failed at %s and goes on", getattr(action, "__name__", "a task"))

    def _keep(self) -> None:
        self._keeper.ensure()

    def _beat_safely(self) -> float:
        try:
            return self._beat()
        except RedisError as error:
            self._admission.lost(error)
        except Exception:
            log.exception("a round of the limits' pacer failed; it goes on")
        return _MOST

    def _beat(self) -> float:
        """One round; returns seconds until the next."""
        admission = self._admission
        self._free_the_dead()
        swept = admission.scripts.sweep(admission.worker, admission.settings.lease)
        self._look_at_pauses()
        self._compare()
        self._back_again()
        self._act_on(swept)
        if swept.is_pacer:
            self._once_a_second()
        if admission.dying:
            return _DYING
        return max(_LEAST, min(_MOST, swept.next_in.total_seconds())) if swept.is_pacer else _MOST

    def _act_on(self, swept: Swept) -> None:
        if swept.buried:
            log.warning("%d workers are gone; %d slots are free again", swept.buried, swept.freed)
        if swept.outgoing:
            self._safely(self._admission.publish)
        for ended in swept.ended:
            self._admission.end(ended)
        for meta in swept.died:  # nothing goes on there; the next attempt tells when it does elsewhere
            self._admission.queued_again(meta)

    def _free_the_dead(self) -> None:
        """Free slots of children that Celery kills after it has told of it, or before it looks for them."""
        admission, now = self._admission, time.monotonic()
        for _ in range(len(admission.dying)):
            pid, until, request = admission.dying.popleft()
            if request.holder in admission.executing and now < until and _lives(pid):
                admission.dying.append((pid, until, request))
            else:
                admission.leave(request)
        if admission.ended:
            admission.end_leases()
        for _ in range(len(admission.unreleased)):
            execution = admission.unreleased.popleft()
            if not admission.free(execution):
                admission.unreleased.append(execution)
                return

    def _look_at_pauses(self) -> None:
        """A paused task is held back within two seconds, though nothing limits it otherwise."""
        if time.monotonic() - self._looked_at >= _PAUSES_EVERY:
            self._looked_at = time.monotonic()
            self._admission.paused = self._admission.scripts.paused()

    def _compare(self) -> None:
        """Make Redis know what executes here, and nothing else."""
        admission = self._admission
        every = admission.settings.lease.total_seconds() / 5
        if time.monotonic() - self._compared_at < every:
            return
        self._compared_at = time.monotonic()
        if admission.scripts.epoch() != admission.epoch:
            admission.declare()
        self._custody.register()
        self._safely(self._custody.restore_strays)
        known = admission.scripts.holders(admission.worker)
        for holder, execution in list(admission.executing.items()):
            if holder not in known:
                log.warning("run %s is unknown to Redis; it takes its lease again", execution.request.id)
                admission.restore(holder, execution)
        unknown = {
            holder
            for holder in known
            if holder not in admission.executing and member_held_by(holder) not in admission.unanswered
        }
        for holder in unknown & self._unknown:
            admission.scripts.release(admission.worker, holder, known[holder])
            log.warning("a slot that nobody here uses is free again (%s)", holder)
        self._unknown = unknown

    def _back_again(self) -> None:
        """Redis answers: let the runs ask again that were held back while it did not."""
        admission = self._admission
        if not admission.is_reachable:
            log.warning("the limits' Redis answers again")
            admission.is_reachable = True
        for _ in range(len(admission.held_back)):
            request = admission.held_back.popleft()
            admission.consumer.call_soon(admission.consumer.on_task_request, request)

    def _once_a_second(self) -> None:
        """What one worker does for all."""
        if time.monotonic() - self._reported_at >= 1.0:
            self._reported_at = time.monotonic()
            self._positions.report()
            self._safely(self._custody.restore_orphans)


def _lives(child: int) -> bool:
    try:
        if not hasattr(os, "waitid"):
            os.kill(child, 0)  # a dead child is told apart once the pool has waited for it
            return True
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (ProcessLookupError, ChildProcessError):
        return False
