"""Admission: whether a run may start now, asked in the worker's main process right before the pool.

A run that may not is parked in Redis and acked at the broker: it holds no pool slot and no prefetch
room. See `bridge.limits.scripts` for who decides, `bridge.limits.pacer` for what happens in between.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from billiard.einfo import ExceptionInfo
from celery.exceptions import TaskRevokedError
from celery.worker.state import requests, task_ready
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from bridge import lifecycle
from bridge.errors import PublicError
from bridge.events import run_uuid
from bridge.header import HEADER, Header, counted
from bridge.lifecycle import WorkersLost
from bridge.limits.broker import Broker, Mark
from bridge.limits.gates import passage_of, quoted
from bridge.limits.scripts import Answer, Ask, Ended, LimitScripts, Parcel, Unacked, Victim
from bridge.request import unstarted

if TYPE_CHECKING:
    from bridge.extension import Bridge

log = logging.getLogger(__name__)

_TRIES: Final = 3
_TOGETHER: Final = 0.02  # seconds in which ends are gathered


class HeldBack(TaskRevokedError):
    """The run does not start now; Celery gives its pool slot back."""


@dataclass(slots=True)
class Execution:
    """One run that executes here, and the slots it holds."""

    holder: str
    ask: Ask
    request: Any = field(repr=False)
    is_given_back: bool = False  # its message is in the queue again, on purpose


class Admission:
    """The gate in front of one worker's pool."""

    def __init__(self, bridge: Bridge, hostname: str) -> None:
        self._bridge = bridge
        settings = bridge.settings
        self.settings = settings.limits
        self.worker = f"{quoted(hostname)}!{secrets.token_hex(4)}"
        seconds = self.settings.timeout.total_seconds()
        self.redis_url = self.settings.redis_url or settings.outbox.redis_url
        self.redis = Redis.from_url(
            self.redis_url, socket_timeout=seconds, socket_connect_timeout=seconds,
            # The client's own would ask again in the consumer's loop, and hide that an answer was lost.
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self.scripts = LimitScripts(self.redis, settings.outbox.prefix)
        self.broker = Broker(bridge.app)
        self.epoch = ""
        self.paused: frozenset[str] = frozenset()
        self.executing: dict[str, Execution] = {}
        self.unreleased: deque[Execution] = deque()
        self.ended: deque[str] = deque()
        self.dying: deque[tuple[int, float, Any]] = deque()
        self.held_back: deque[Any] = deque()
        self.unanswered: set[str] = set()  # may hold slots here, though nobody was told
        self.is_reachable = True
        self.later: Callable[[Callable[[], object]], object] = lambda action: action()
        self.consumer: Any = None

    # Asked by bridge.request, in the consumer's loop

    def enter(self, request: Any) -> None:
        """Take the slots that the run needs, or raise `HeldBack` when it does not start now."""
        declared = self._bridge.declaration(request.task)
        try:
            passage = passage_of(declared, declared.arguments(request.args or (), request.kwargs or {}))
        except PublicError as error:
            self._fail(request, error)
            raise HeldBack(request.id) from None
        mark = Mark.of(request.request_dict)
        member = member_of(request.request_dict)
        ask = Ask(
            member, self.worker, passage.lane, passage.units, self.broker.priority(request.message),
            declared.on_limit, mark.epoch if mark.member == member else "", self._meta(request),
            not request.task.acks_late,
        )  # fmt: skip
        if request.delivery_info.get("redelivered"):
            self._take_back(ask.member)
        if ask.units or not self._is_leased(request, ask):
            self._act(request, ask, self._answer(request, ask))

    def leave(self, request: Any) -> None:
        """Free the slots of a run that executes no longer, once."""
        execution = self.executing.pop(request.holder, None) if request.holder else None
        if execution is None:
            return
        if request.acknowledged and not execution.ask.units:
            self._ended(execution.holder)
        elif not self.free(execution):
            self.unreleased.append(execution)

    def leave_and_ack(self, request: Any) -> bool:
        """Free the slots and ack the message in one step; False where that takes two, or Redis is away."""
        execution = self.executing.get(request.holder)
        unacked = self.broker.unacked(request.message) if execution is not None else None
        if execution is None or unacked is None or not self.free(execution, unacked):
            return False
        self.executing.pop(request.holder, None)
        self.broker.acked(request.message)
        return True

    def leave_when_gone(self, request: Any, pid: int, at_most: float = math.inf) -> None:
        """Free the slots once the child process is dead, or after so many seconds."""
        if request.holder in self.executing:
            self.dying.append((pid, time.monotonic() + at_most, request))
            self.later(_look)

    def give_back(self, request: Any, died: bool) -> None:
        """The run's message goes back to its queue: what comes from there is no second delivery."""
        if request.holder in self.executing:
            self.executing[request.holder].is_given_back = True
        if request.holder:
            self._safely(lambda: self.scripts.disown(request.holder, died))

    def forget(self, request: Any) -> None:
        """Drop a parked run that was ended without having started."""
        member = member_of(request.request_dict)
        self.unanswered.discard(member)
        if Mark.of(request.request_dict).member == member and not request.holder:
            self._safely(lambda: self.scripts.forget(member))

    def withdraw(self, task_ids: list[str]) -> None:
        """End runs that wait: they were revoked."""
        try:
            for task_id in task_ids:
                self._end_if(self.scripts.withdraw(quoted(task_id), "revoked"))
        except RedisError as error:
            self.lost(error)

    # For bridge.limits.pacer, from its thread

    def free(self, execution: Execution, unacked: Unacked | None = None) -> bool:
        """Release an execution's slots, and ack its message; False when Redis is away."""
        ask = execution.ask
        try:
            if not execution.request.acknowledged and unacked is None:
                self.scripts.disown(execution.holder)  # its message will be delivered again
            outgoing = self.scripts.release(ask.worker, execution.holder, ask.lane, unacked=unacked)
        except RedisError as error:
            self.lost(error)
            return False
        if outgoing:
            self.later(self.publish)
        return True

    def restore(self, holder: str, execution: Execution) -> None:
        """Make Redis know an execution that lives, and its row if it was told to be queued."""
        if execution.is_given_back:
            return  # its process is about to die, and what is delivered now is the next one
        if self.scripts.restore(execution.ask, holder):
            log.warning("run %s was taken for lost; it lives, and goes on here", execution.request.id)
            self._bridge.signals.told_of(execution.ask.meta, {"status": "in_progress", "state": "STARTED"})

    def publish(self) -> None:
        """Hand granted runs to a broker that is not the limits' Redis."""
        while (found := self.scripts.next_outgoing()) is not None:
            member, message = found
            self.broker.publish(message)
            self.scripts.sent(member)

    def queued_again(self, meta: str) -> None:
        """A run whose worker died waits in its queue again."""
        self._bridge.signals.told_of(meta, {"status": "queued", "state": "PENDING"})

    def end(self, ended: Ended) -> None:
        """End a run that waited; not in the consumer's loop, which a solo worker's body keeps busy."""
        self.later(lambda: self._end_waiting(ended))

    # Pieces

    def _answer(self, request: Any, ask: Ask) -> Answer:
        if not self.is_reachable:
            raise self._hold_back(request)
        try:
            answer = self.scripts.admit(ask)
            for _ in range(_TRIES):
                if answer.word == "unknown":
                    self.declare()
                    answer = self.scripts.admit(ask)
                elif answer.word == "full":
                    answer = self.scripts.admit(ask, self._parcel(request, ask))
                elif answer.word == "spare" and (holder := self._unnoticed(ask)):
                    answer = Answer("run", holder)
                elif answer.word == "spare" and not self.scripts.spare(
                    ask.member, self._parcel(request, ask)
                ):
                    answer = self.scripts.admit(ask)
                else:
                    self.unanswered.discard(ask.member)
                    return answer
        except RedisError as error:
            self.unanswered.add(ask.member)
            self.lost(error)
        raise self._hold_back(request)

    def _unnoticed(self, ask: Ask) -> str | None:
        """The slots that this run was given here by an answer that never arrived."""
        if ask.member not in self.unanswered:
            return None
        held = self.scripts.holders(self.worker)
        return next((each for each in held if member_held_by(each) == ask.member), None)

    def _act(self, request: Any, ask: Ask, answer: Answer) -> None:
        if answer.word == "run":
            self._start(request, ask, answer.holder)
            self._count_deaths(request, ask, answer.deaths)
            return
        if answer.word == "waiting":
            self._bridge.signals.waiting(request, answer.gate, answer.position)
            self.later(lambda: self._replace(answer.victims))
        elif answer.word == "dropped":
            request.end_unstarted("dropped")
            raise HeldBack(request.id)
        else:
            log.info("a second delivery of run %s is dropped", request.id)
        self._drop(request)
        raise HeldBack(request.id)

    def declare(self) -> None:
        """Tell Redis what the code declares."""
        self.epoch, wait = self.scripts.declare(
            self._bridge.declared_values(), self.settings.lease, self.settings.grant
        )
        if wait:
            log.warning(
                "the limits' Redis knew nothing; limited runs wait %.1f s until it is known what is running",
                wait.total_seconds(),
            )

    def _is_leased(self, request: Any, ask: Ask) -> bool:
        """Lease a run that no limit holds back; while Redis is away it starts all the same."""
        holder = f"{ask.member}#0{secrets.randbelow(10**9)}"
        try:
            if self.is_reachable and not self._lease(ask, holder):
                return False
        except RedisError as error:
            self.lost(error)
        if not self.is_reachable and self._may_live(request, ask):
            raise self._hold_back(request)
        self._start(request, ask, holder)
        return True

    def _lease(self, ask: Ask, holder: str) -> bool:
        try:
            return self.scripts.lease(ask, holder, self.settings.lease)
        except ConnectionError:  # it is cut, with that of the broker, which delivers again what executes here
            return self.scripts.lease(ask, holder, self.settings.lease)

    def _take_back(self, member: str) -> None:
        """A run that executes here was taken for lost, and its message is here before the pacer knows."""
        for holder, living in list(self.executing.items()):
            if living.ask.member == member:
                self._safely(partial(self.restore, holder, living))

    def _may_live(self, request: Any, ask: Ask) -> bool:
        """Whether this may be a second delivery of a run that executes; only Redis could tell for sure."""
        is_again = bool(request.delivery_info.get("redelivered"))
        return is_again or any(each.ask.member == ask.member for each in list(self.executing.values()))

    def _start(self, request: Any, ask: Ask, holder: str) -> None:
        request.holder = holder
        _note(request, holder=holder)
        self.executing[holder] = Execution(holder, ask, request)

    def _count_deaths(self, request: Any, ask: Ask, deaths: int) -> None:
        """Number the attempt by those that died with their workers; after too many the run has failed."""
        if not deaths:
            return
        headers, most = request.request_dict, request.task.max_retries
        # A replaced run has tries of its own; one that is acked early comes back only if it never began.
        used_up = (
            most is not None and request.task.acks_late and counted(headers.get("retries")) + deaths > most
        )
        _note(request, earlier=Header.read(headers).earlier + deaths - (1 if used_up else 0))
        self.executing[request.holder].ask = replace(ask, meta=self._meta(request))
        if used_up:  # told as of the last attempt that there was
            self._fail(request, WorkersLost())
            raise HeldBack(request.id)

    def _ended(self, holder: str) -> None:
        """Note the end of a run that holds no slots, for the pacer: nobody waits for it."""
        self.ended.append(holder)
        if len(self.ended) == 1:
            self.later(self.end_leases)

    def end_leases(self) -> None:
        """Tell Redis of the runs that have ended, many at once."""
        time.sleep(_TOGETHER)
        holders = [self.ended.popleft() for _ in range(len(self.ended))]
        try:
            self.scripts.end(self.worker, holders)
        except RedisError as error:
            self.ended.extend(holders)
            self.lost(error)

    def _meta(self, request: Any) -> str:
        run_id = run_uuid(request.id)
        root = run_uuid(request.root_id or request.id)
        n = attempt_of(request.request_dict)
        mirror = "true" if self._bridge.is_mirrored(request.task_name) else "false"
        return f'{{"id":"{run_id}","root":"{root}","n":{n},"mirror":{mirror}}}'

    def _parcel(self, request: Any, ask: Ask) -> Parcel:
        expires = int(request.expires.timestamp() * 1000) if request.expires else 0
        mark = Mark(self.epoch, ask.member)
        return self.broker.parcel(request.message, mark, ask.meta, expires)

    def _replace(self, victims: tuple[Victim, ...]) -> None:
        for victim in victims:
            task_id = victim.member.rsplit(":", 2)[0]
            if victim.worker:
                self._bridge.app.control.revoke(unquote(task_id), terminate=True)
            else:
                self._end_if(self.scripts.withdraw(task_id, "superseded"))

    def _drop(self, request: Any) -> None:
        """Let go of a message that nobody needs any more, or that is parked."""
        task_ready(request)
        request.acknowledge()
        for execution in list(self.executing.values()):  # threads of the pool take theirs out meanwhile
            if execution.request.id == request.id:
                requests[request.id] = execution.request  # it stays the one that Celery knows by this id

    def _end_if(self, ended: Ended | None) -> None:
        if ended is not None:
            self.end(ended)

    def _end_waiting(self, ended: Ended) -> None:
        if not ended.message:
            self._end_lost(ended)
            return
        message = self.broker.message(ended.message)
        unstarted(self._bridge.app, message, self.consumer).end_unstarted(ended.why)

    def _end_lost(self, ended: Ended) -> None:
        """A run that was acked before it executed, and whose worker died: nobody will try it again."""
        task_id = unquote(ended.member.rsplit(":", 2)[0])
        self._bridge.app.backend.mark_as_failure(task_id, WorkersLost())
        self._bridge.signals.told_of(ended.meta, lifecycle.failed(WorkersLost(), expose=False))
        self.scripts.forget(ended.member)

    def _fail(self, request: Any, error: PublicError) -> None:
        try:
            raise error
        except PublicError:
            request.on_failure(ExceptionInfo())
        request.acknowledge()

    def _hold_back(self, request: Any) -> HeldBack:
        """Keep the run unacked until Redis answers again; nothing starts that nobody counts."""
        self.held_back.append(request)
        return HeldBack(request.id)

    def _safely(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except RedisError as error:
            self.lost(error)

    def lost(self, error: RedisError) -> None:
        """Redis does not answer: nobody is let in until the pacer reaches it again."""
        if self.is_reachable:
            log.error("the limits' Redis does not answer (%s); limited runs wait", type(error).__name__)
        self.is_reachable = False


def _note(request: Any, **values: Any) -> None:
    """Tell the process that executes the run, in the header of its message."""
    header = request.request_dict.get(HEADER)
    request.request_dict[HEADER] = {**(header if isinstance(header, dict) else {}), **values}


def attempt_of(headers: Any) -> int:
    """The number of the attempt that a message is for."""
    return Header.read(headers).earlier + counted(headers.get("retries")) + 1


def member_of(headers: Any) -> str:
    """One attempt of a run, as the limits know it: `<task id>:<attempt>:<nesting of replace()>`."""
    nesting = counted(headers.get("replaced_task_nesting"))
    return f"{quoted(str(headers['id']))}:{attempt_of(headers)}:{nesting}"


def member_held_by(holder: str) -> str:
    """The attempt of a run that holds slots under this name."""
    return holder.rpartition("#")[0]


def _look() -> None:
    """Nothing but a reason for the pacer to look at once."""
