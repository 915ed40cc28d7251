"""The end of runs that will not start: revoked, expired or replaced while they waited, or lost for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from redis import RedisError

from bridge import lifecycle
from bridge.lifecycle import WorkersLost
from bridge.limits.answers import Ended, Victim
from bridge.limits.attempts import task_id_of
from bridge.limits.broker import Broker
from bridge.limits.gates import quoted
from bridge.limits.link import Link
from bridge.worker.request import unstarted

if TYPE_CHECKING:
    from bridge.extension import Bridge


class Endings:
    """Ends runs as Celery does, in the pacer's thread; a solo worker's body keeps the consumer busy."""

    def __init__(self, bridge: Bridge, link: Link, broker: Broker) -> None:
        self._bridge, self._link, self._broker = bridge, link, broker
        self._consumer: Any = None

    def attach(self, consumer: Any) -> None:
        """Before the first run is ended."""
        self._consumer = consumer

    def withdraw(self, task_ids: list[str]) -> None:
        """End runs that wait: they were revoked."""
        try:
            for task_id in task_ids:
                self._withdraw(quoted(task_id), "revoked")
        except RedisError as error:
            self._link.lost(error)

    def replace(self, victims: tuple[Victim, ...]) -> None:
        """End runs that a newer one replaces, be they executing or waiting."""
        for victim in victims:
            task_id = task_id_of(victim.member)
            if victim.worker:
                self._bridge.app.control.revoke(unquote(task_id), terminate=True)
            else:
                self._withdraw(task_id, "superseded")

    def end(self, ended: Ended) -> None:
        """End a run that is out of its line."""
        self._link.later(lambda: self._end(ended))

    def _withdraw(self, task_id: str, why: str) -> None:
        if (ended := self._link.scripts.withdraw(task_id, why)) is not None:
            self.end(ended)

    def _end(self, ended: Ended) -> None:
        if not ended.message:
            self._end_lost(ended)
            return
        message = self._broker.message(ended.message)
        unstarted(self._bridge.app, message, self._consumer).end_unstarted(ended.why)

    def _end_lost(self, ended: Ended) -> None:
        """A run that was acked before it executed, and whose worker died: nobody will try it again."""
        task_id = unquote(task_id_of(ended.member))
        self._bridge.app.backend.mark_as_failure(task_id, WorkersLost())
        self._bridge.signals.told_of(ended.meta, lifecycle.failed(WorkersLost(), expose=False))
        self._link.scripts.forget(ended.member)
