"""Leases: what executes in this worker, and that Redis knows it and nothing else.

A run that executes has a holder, the name under which Redis keeps its lease and, where limits hold for
it, its slots. `Leases` alone knows the executions of this worker, from their start until Redis has been
told of their end, whatever way they end in. Whether a run may start is for `bridge.limits.admission`.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from redis import RedisError
from redis.exceptions import ConnectionError

from bridge import lifecycle
from bridge.limits.answers import Ask, Unacked
from bridge.limits.attempts import member_held_by, note
from bridge.limits.broker import Broker
from bridge.limits.link import Link

if TYPE_CHECKING:
    from bridge.extension import Bridge

log = logging.getLogger(__name__)

_TOGETHER: Final = 0.02  # seconds in which ends are gathered


@dataclass(slots=True)
class Execution:
    """One run that executes here, and the slots it holds."""

    holder: str
    ask: Ask
    request: Any = field(repr=False)
    is_given_back: bool = False  # its message is in the queue again, on purpose
    is_told: bool = True  # to Redis; a run may begin, and end, while that is away


class Leases:
    """The executions of one worker."""

    def __init__(self, bridge: Bridge, link: Link, broker: Broker) -> None:
        self._bridge, self._link, self._broker = bridge, link, broker
        self._executing: dict[str, Execution] = {}
        self._dying: deque[tuple[int, float, Any]] = deque()
        self._unreleased: deque[Execution] = deque()
        self._ended: deque[str] = deque()  # of those that held no slots: nobody waits for them
        self._unknown: set[str] = set()
        self._untold: set[str] = set()

    # Asked by bridge.limits.admission, in the consumer's loop

    def lease(self, ask: Ask) -> str | None:
        """Lease a run that no limit holds back; None when the whole admission has to decide.

        While Redis is away it has a holder all the same.
        """
        holder = f"{ask.member}#0{secrets.randbelow(10**9)}"
        try:
            if self._link.is_up:
                return holder if self._is_leased(ask, holder) else None
        except RedisError as error:
            self._link.lost(error)
        self._untold.add(holder)
        return holder

    def begin(self, request: Any, ask: Ask, holder: str) -> None:
        """The run executes from now on."""
        request.holder = holder
        note(request, holder=holder)
        is_told = holder not in self._untold
        self._untold.discard(holder)
        self._executing[holder] = Execution(holder, ask, request, is_told=is_told)

    def has(self, member: str) -> bool:
        """Whether an attempt of a run executes here, or has ended here and Redis was not told."""
        here = [*list(self._executing.values()), *list(self._unreleased)]
        return any(each.ask.member == member for each in here)

    def requests_of(self, task_id: str) -> list[Any]:
        """The requests by which a run executes here."""
        living = list(self._executing.values())  # threads of the pool take theirs out meanwhile
        return [each.request for each in living if each.request.id == task_id]

    def tell_of_end(self, member: str) -> bool:
        """Tell Redis at once that an attempt has ended here, if it has; a run may be sent anew right after.

        Raises:
            RedisError: it does not answer.
        """
        ended = [each for each in list(self._ended) if member_held_by(each) == member]
        if ended:
            self._link.scripts.end(self._link.worker, ended)
        return bool(ended)

    def take_back(self, member: str) -> None:
        """A run that executes here, or has ended here, was taken for lost, and its message is here before
        the pacer knows."""
        for holder, living in list(self._executing.items()):
            if living.ask.member == member:
                self._link.safely(partial(self._restore, holder, living))
        self._link.safely(partial(self.tell_of_end, member))
        for ended in list(self._unreleased):
            if ended.ask.member == member:
                self._free(ended)

    # Asked by bridge.worker

    def leave(self, request: Any) -> None:
        """Free the slots of a run that executes no longer, once."""
        execution = self._executing.pop(request.holder, None) if request.holder else None
        if execution is None:
            return
        if (
            request.acknowledged
            and not execution.is_given_back
            and not execution.ask.units
            and execution.is_told
        ):
            self._gather(execution.holder)
        elif not self._link.is_up or not self._free(execution):  # the consumer's loop waits for Redis once
            self._unreleased.append(execution)

    def leave_unstarted(self, jobs: Collection[Any]) -> None:
        """Free the slots of runs that the pool has dropped; their messages are delivered again."""
        for execution in list(self._executing.values()):
            result = execution.request._apply_result
            if result is not None and result() in jobs:
                self.leave(execution.request)

    def leave_and_ack(self, request: Any) -> bool:
        """Free the slots and ack the message in one step; False where that takes two, or Redis is away."""
        execution = self._executing.get(request.holder) if self._link.is_up else None
        unacked = self._broker.unacked(request.message) if execution is not None else None
        if execution is None or unacked is None or not self._free(execution, unacked):
            return False
        self._executing.pop(request.holder, None)
        self._broker.acked(request.message)
        return True

    def ack(self, message: Any) -> bool:
        """Ack a message by the limits' connection, for a third of what the broker's way costs; False where
        that cannot be, or Redis is away."""
        unacked = self._broker.unacked(message) if self._link.is_up else None
        if unacked is None:
            return False
        try:
            self._link.scripts.ack(unacked)
        except RedisError as error:
            self._link.lost(error)
            return False
        self._broker.acked(message)
        return True

    def leave_when_gone(self, request: Any, pid: int, at_most: float = math.inf) -> None:
        """Free the slots once the child process is dead, or after so many seconds."""
        if request.holder in self._executing:
            self._dying.append((pid, time.monotonic() + at_most, request))
            self._link.later(_look)

    def give_back(self, request: Any, died: bool) -> None:
        """The run's message goes back to its queue: what comes from there is no second delivery."""
        if request.holder in self._executing:
            self._executing[request.holder].is_given_back = True
        if request.holder:
            self._link.safely(lambda: self._link.scripts.disown(request.holder, died))

    # Asked by bridge.limits.pacer, from its thread

    @property
    def are_dying(self) -> bool:
        """Whether child processes are about to be dead."""
        return bool(self._dying)

    def settle(self) -> None:
        """Tell Redis of the ends that it has not been told of."""
        for _ in range(len(self._dying)):  # whom Celery kills after it has told of it, or looks for later
            pid, until, request = self._dying.popleft()
            if request.holder in self._executing and time.monotonic() < until and _lives(pid):
                self._dying.append((pid, until, request))
            else:
                self.leave(request)
        self.tell_of_ends()
        self._release()

    def tell_of_ends(self) -> None:
        """Tell Redis of the runs that have ended, many at once."""
        if not self._ended:
            return
        time.sleep(_TOGETHER)
        holders = list(self._ended)
        try:
            self._link.scripts.end(self._link.worker, holders)
        except RedisError as error:
            self._link.lost(error)
            return
        for _ in holders:  # not before Redis knows, for `tell_of_end`
            self._ended.popleft()
        if self._ended:
            self._link.later(self.tell_of_ends)

    def compare(self, unanswered: Collection[str]) -> None:
        """Make Redis know what executes here, and nothing else but what attempts may hold untold."""
        worker, scripts = self._link.worker, self._link.scripts
        executing = list(self._executing.items())  # before Redis is asked: it knows what begins meanwhile
        known = scripts.holders(worker)
        for holder, execution in executing:
            if holder not in known and holder in self._executing:
                log.warning("run %s is unknown to Redis; it takes its lease again", execution.request.id)
                self._restore(holder, execution)
        unknown = {
            holder
            for holder in known
            if holder not in self._executing and member_held_by(holder) not in unanswered
        }
        for holder in unknown & self._unknown:
            scripts.release(worker, holder, known[holder], is_over=False)
            log.warning("a slot that nobody here uses is free again (%s)", holder)
        self._unknown = unknown

    def queued_again(self, meta: str) -> None:
        """A run whose worker died waits in its queue again."""
        self._bridge.signals.told_of(meta, lifecycle.queued_again())

    def publish(self) -> None:
        """Hand granted runs to a broker that is not the limits' Redis."""
        while (found := self._link.scripts.next_outgoing()) is not None:
            member, message = found
            self._broker.publish(message)
            self._link.scripts.sent(member)

    def close(self) -> None:
        """Free what is still held; the pool is down by now, and nobody else would tell."""
        for execution in list(self._executing.values()):
            if self._link.is_up:
                execution.request.end_stopped()
            self.leave(execution.request)
        self.tell_of_ends()
        self._release()

    # Pieces

    def _release(self) -> None:
        for _ in range(len(self._unreleased)):
            execution = self._unreleased.popleft()
            if not self._free(execution):
                self._unreleased.append(execution)
                return

    def _is_leased(self, ask: Ask, holder: str) -> bool:
        scripts, lease = self._link.scripts, self._link.settings.lease
        try:
            return scripts.lease(ask, holder, lease)
        except ConnectionError:  # it is cut, with that of the broker, which delivers again what executes here
            return scripts.lease(ask, holder, lease)

    def _free(self, execution: Execution, unacked: Unacked | None = None) -> bool:
        """Release an execution's slots, and ack its message; False when Redis is away."""
        ask, scripts = execution.ask, self._link.scripts
        comes_again = not execution.request.acknowledged and unacked is None
        is_over = not comes_again and not execution.is_given_back
        try:
            if comes_again:
                scripts.disown(execution.holder)  # its message will be delivered again
            elif not execution.is_told:
                self._restore(execution.holder, execution)  # or its end would not be remembered
            outgoing = scripts.release(
                ask.worker, execution.holder, ask.lane, unacked=unacked, is_over=is_over
            )
        except RedisError as error:
            self._link.lost(error)
            return False
        if outgoing:
            self._link.later(self.publish)
        return True

    def _restore(self, holder: str, execution: Execution) -> None:
        """Make Redis know an execution that lives, and its row if it was told to be queued."""
        if execution.is_given_back:
            return  # its process is about to die, and what is delivered now is the next one
        was_lost, execution.is_told = self._link.scripts.restore(execution.ask, holder), True
        if was_lost:
            log.warning("run %s was taken for lost; it lives, and goes on here", execution.request.id)
            self._bridge.signals.told_of(execution.ask.meta, {"status": "in_progress", "state": "STARTED"})

    def _gather(self, holder: str) -> None:
        self._ended.append(holder)
        if len(self._ended) == 1:
            self._link.later(self.tell_of_ends)


def _lives(child: int) -> bool:
    try:
        if not hasattr(os, "waitid"):
            os.kill(child, 0)  # a dead child is told apart once the pool has waited for it
            return True
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (ProcessLookupError, ChildProcessError):
        return False


def _look() -> None:
    """Nothing but a reason for the pacer to look at once."""
