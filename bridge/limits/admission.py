"""Admission: whether a run may start now, asked in the worker's main process right before the pool.

A run that may not is parked in Redis and acked at the broker: it holds no pool slot and no prefetch
room. See `bridge.limits.scripts` for who decides, `bridge.limits.leases` for what has started, and
`bridge.limits.pacer` for what happens in between. `Admission` alone knows the runs to which Redis owes an
answer: those that are held back until it answers, and those that it may have let in untold.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from billiard.einfo import ExceptionInfo
from celery.exceptions import TaskRevokedError
from celery.worker.state import requests, task_ready
from redis import RedisError

from bridge.errors import PublicError
from bridge.lifecycle import WorkersLost
from bridge.limits.answers import Answer, Ask, Parcel
from bridge.limits.attempts import count_deaths, member_held_by, member_of, meta_of
from bridge.limits.broker import Broker, Mark
from bridge.limits.endings import Endings
from bridge.limits.gates import Passage, passage_of
from bridge.limits.leases import Leases
from bridge.limits.link import Link
from bridge.options import Declaration

if TYPE_CHECKING:
    from bridge.extension import Bridge

log = logging.getLogger(__name__)

_TRIES: Final = 3


class HeldBack(TaskRevokedError):
    """The run does not start now; Celery gives its pool slot back."""


class Admission:
    """The gate in front of one worker's pool."""

    def __init__(self, bridge: Bridge, link: Link, broker: Broker, leases: Leases, endings: Endings) -> None:
        self._bridge, self._link, self._broker = bridge, link, broker
        self._endings = endings
        self._consumer: Any = None
        self._held_back: deque[Any] = deque()
        self._unanswered: set[str] = set()
        self.leases = leases
        self.later = link.later

    def attach(self, consumer: Any) -> None:
        """Before the first run asks."""
        self._consumer = consumer

    # Asked by bridge.worker.request, in the consumer's loop

    def enter(self, request: Any) -> None:
        """Take the slots that the run needs, or raise `HeldBack` when it does not start now."""
        declared = self._bridge.declaration(request.task)
        ask = self._ask(request, declared.on_limit, self._passage(request, declared))
        if request.delivery_info.get("redelivered"):
            self.leases.take_back(ask.member)
        if ask.units or not self._is_leased(request, ask):
            self._act(request, ask, self._answer(request, ask))

    def forget(self, request: Any) -> None:
        """Drop a parked run that was ended without having started."""
        member = member_of(request.request_dict)
        self._unanswered.discard(member)
        if Mark.of(request.request_dict).member == member and not request.holder:
            self._link.safely(lambda: self._link.scripts.forget(member))

    # Asked by bridge.limits.pacer, from its thread

    @property
    def unanswered(self) -> Collection[str]:
        """Attempts that may hold slots here, though nobody was told."""
        return self._unanswered

    def ask_again(self) -> None:
        """Redis answers: the runs ask that were held back while it did not."""
        for _ in range(len(self._held_back)):
            request = self._held_back.popleft()
            self._consumer.call_soon(self._consumer.on_task_request, request)

    # Ask

    def _passage(self, request: Any, declared: Declaration) -> Passage:
        if (always := declared.turnstile.always) is not None:
            return always
        try:
            return passage_of(declared, declared.arguments(request.args or (), request.kwargs or {}))
        except PublicError as error:
            self._fail(request, error)
            raise HeldBack(request.id) from None

    def _ask(self, request: Any, on_limit: str, passage: Passage) -> Ask:
        mark = Mark.of(request.request_dict)
        member = member_of(request.request_dict)
        return Ask(
            member, self._link.worker, passage.lane, passage.units, self._broker.priority(request.message),
            on_limit, mark.epoch if mark.member == member else "", self._meta(request),
            not request.task.acks_late,
        )  # fmt: skip

    def _is_leased(self, request: Any, ask: Ask) -> bool:
        """Start a run that no limit holds back; while Redis is away it starts all the same."""
        holder = self.leases.lease(ask)
        if holder is None:
            return False
        if not self._link.is_up and self._may_live(request, ask):
            raise self._hold_back(request)
        self.leases.begin(request, ask, holder)
        return True

    def _may_live(self, request: Any, ask: Ask) -> bool:
        """Whether this may be a second delivery of a run that executes; only Redis could tell for sure."""
        return bool(request.delivery_info.get("redelivered")) or self.leases.has(ask.member)

    def _answer(self, request: Any, ask: Ask) -> Answer:
        if not self._link.is_up:
            raise self._hold_back(request)
        try:
            answer = self._link.scripts.admit(ask)
            for _ in range(_TRIES):
                if (next_answer := self._asked_on(request, ask, answer)) is None:
                    self._unanswered.discard(ask.member)
                    return answer
                answer = next_answer
        except RedisError as error:
            self._unanswered.add(ask.member)
            self._link.lost(error)
        raise self._hold_back(request)

    def _asked_on(self, request: Any, ask: Ask, answer: Answer) -> Answer | None:
        """What there is to say to an answer, and what comes back; None when the answer is the last word."""
        scripts = self._link.scripts
        if answer.word == "unknown":
            self._link.declare()
            return scripts.admit(ask)
        if answer.word == "full":
            return scripts.admit(ask, self._parcel(request, ask))
        if answer.word != "spare":
            return None
        if holder := self._unnoticed(ask):
            return Answer("run", holder)
        if self.leases.tell_of_end(ask.member):
            return scripts.admit(ask)
        is_kept = scripts.spare(ask.member, self._parcel(request, ask))
        return None if is_kept else scripts.admit(ask)

    def _unnoticed(self, ask: Ask) -> str | None:
        """The slots that this run was given here by an answer that never arrived."""
        if ask.member not in self._unanswered:
            return None
        held = self._link.scripts.holders(self._link.worker)
        return next((each for each in held if member_held_by(each) == ask.member), None)

    def _parcel(self, request: Any, ask: Ask) -> Parcel:
        ahead = self._bridge.clock.ahead()
        expires = int((request.expires.timestamp() - ahead) * 1000) if request.expires else 0
        mark = Mark(self._link.epoch, ask.member)
        return self._broker.parcel(request.message, mark, ask.meta, expires)

    def _meta(self, request: Any) -> str:
        return meta_of(request, self._bridge.is_mirrored(request.task_name))

    # Act

    def _act(self, request: Any, ask: Ask, answer: Answer) -> None:
        if answer.word == "run":
            self._start(request, ask, answer)
            return
        if answer.word == "waiting":
            self._bridge.signals.waiting(request, answer.gate, answer.position)
            self.later(lambda: self._endings.replace(answer.victims))
        elif answer.word == "dropped":
            request.end_unstarted("dropped")
            raise HeldBack(request.id)
        else:
            log.info("a second delivery of run %s is dropped", request.id)
        self._drop(request)
        raise HeldBack(request.id)

    def _start(self, request: Any, ask: Ask, answer: Answer) -> None:
        """The run executes from now on; once too many attempts died with their workers it has failed."""
        used_up = False
        if answer.deaths:
            used_up = count_deaths(request, answer.deaths)
            ask = replace(ask, meta=self._meta(request))
        self.leases.begin(request, ask, answer.holder)
        if used_up:
            self._fail(request, WorkersLost())
            raise HeldBack(request.id)

    def _drop(self, request: Any) -> None:
        """Let go of a message that nobody needs any more, or that is parked."""
        task_ready(request)
        request.acknowledge()
        for living in self.leases.requests_of(request.id):
            requests[request.id] = living  # it stays the one that Celery knows by this id

    def _fail(self, request: Any, error: PublicError) -> None:
        try:
            raise error
        except PublicError:
            request.on_failure(ExceptionInfo())
        request.acknowledge()

    def _hold_back(self, request: Any) -> HeldBack:
        """Keep the run unacked until Redis answers again; nothing starts that nobody counts."""
        self._held_back.append(request)
        return HeldBack(request.id)
