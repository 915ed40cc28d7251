"""Where the runs of a deployment are, as Redis knows it: with a worker, waiting for a limit, or in a queue.

Read in pages, while everything goes on: a run that moves meanwhile may be missed once, so that nothing
is to be concluded from one look. Messages are read on Redis brokers; what others hold cannot be looked at.
"""

from __future__ import annotations

import json
import logging
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

from celery import Celery
from redis import Redis

from bridge.events import run_uuid
from bridge.limits.attempts import task_id_of
from bridge.limits.broker import GRANTED
from bridge.redis_transport import IN_TIME, returned_keys
from bridge.scripts import text

log = logging.getLogger(__name__)

_PAGE: Final = 500
_BINDINGS: Final = "_kombu.binding."
_BINDINGS_EVERY: Final = 60.0
_SEPARATOR: Final = "\x06\x16"  # between the parts of a binding


class Place(Enum):
    """Where a run is. What is kept has somebody who sees to it: it executes, or is about to start or end."""

    KEPT = "kept"
    WAITING = "waiting"
    QUEUED = "queued"


@dataclass(slots=True)
class Whereabouts:
    """One look. `knows_messages`: all queues and all that workers have taken from them was read.

    `knows_workers`: workers have told this Redis what they execute.
    """

    knows_workers: bool = False
    knows_messages: bool = False
    _places: dict[bytes, Place] = field(default_factory=dict)  # by the bytes of the run's id

    def of(self, run_id: str) -> Place | None:
        """Where the run is, None where it was not seen."""
        return self._places.get(UUID(run_id).bytes)

    def note(self, task_id: str, place: Place) -> None:
        """A run was seen; who keeps it counts more than a waiting room, and that more than a message."""
        key = UUID(run_uuid(task_id)).bytes
        if place is not Place.QUEUED or key not in self._places:
            self._places[key] = place


class Lookout:
    """Looks at one deployment's Redis, and at its broker."""

    def __init__(self, app: Celery, limits: Redis, root: str) -> None:
        self._app, self._limits, self._root = app, limits, root
        self._bound: set[str] = set()
        self._bound_at = float("-inf")
        self._unread = 0

    def look(self, queues: Iterable[str]) -> Whereabouts:
        """See where every run is; in the order in which runs move, so that few are missed.

        Args:
            queues: more queues than the app knows of, or somebody has declared at the broker.
        """
        seen = Whereabouts()
        seen.knows_messages = self._note_messages(seen, {*queues, *self._app.amqp.queues})
        seen.knows_workers = bool(self._limits.hexists(f"{self._root}state", "epoch"))
        for task_id in self._parked():
            seen.note(task_id, Place.WAITING)
        for task_id in self._kept():
            seen.note(task_id, Place.KEPT)
        return seen

    def line_of(self, task_id: str) -> tuple[str, int] | None:
        """The gate that holds a waiting run back, and its place in line as last told."""
        member = self._limits.hget(f"{self._root}parked", task_id)
        if member is None:
            return None
        gate, position = self._limits.hmget(f"{self._root}run:{text(member)}", "gate", "position")
        return (text(gate), int(position)) if gate and position else None

    # What the limits keep

    def _kept(self) -> Iterator[str]:
        root = self._root
        for worker, _ in self._limits.zscan_iter(f"{root}workers", count=_PAGE):
            for holder, _ in self._limits.hscan_iter(f"{root}held:{text(worker)}", count=_PAGE):
                yield _task_id(text(holder))
        for name in ("grants", "ending"):
            for member, _ in self._limits.zscan_iter(f"{root}{name}", count=_PAGE):
                yield _task_id(text(member))

    def _parked(self) -> Iterator[str]:
        for task_id, _ in self._limits.hscan_iter(f"{self._root}parked", count=_PAGE):
            yield unquote(text(task_id))

    # What the broker keeps

    def _note_messages(self, seen: Whereabouts, queues: set[str]) -> bool:
        with self._app.connection_for_read(transport_options=IN_TIME) as connection:
            if connection.transport.driver_type != "redis":
                return False
            broker = _Broker(connection.default_channel)
            bound = self._bound_queues(broker) - queues
            for message in broker.queued(bound):  # where others may keep what is none of Celery's
                _noted(message, seen)
            ours = [broker.queued(queues), broker.taken(self._registered()), broker.returned()]
            unread = sum(not _noted(message, seen) for messages in ours for message in messages)
            self._tell(unread)
            return not unread

    def _tell(self, unread: int) -> None:
        if unread and not self._unread:
            log.warning(
                "%d messages in this app's queues cannot be read as a task's; until they are gone, no run is "
                "taken for lost because its message is not there", unread,
            )  # fmt: skip
        self._unread = unread

    def _bound_queues(self, broker: _Broker) -> set[str]:
        if time.monotonic() - self._bound_at > _BINDINGS_EVERY:
            self._bound, self._bound_at = set(broker.bound()), time.monotonic()
        return self._bound

    def _registered(self) -> set[str]:
        found: dict[Any, Any] = self._limits.hgetall(f"{self._root}unacked")
        return {json.loads(keys)[0] for keys in found.values()}


class _Broker:
    """The keys of a Redis broker, through a channel of kombu's."""

    def __init__(self, channel: Any) -> None:
        self._channel, self._prefix = channel, channel.global_keyprefix
        self._redis = Redis(connection_pool=channel.client.connection_pool)  # adds no prefix by itself

    def bound(self) -> Iterator[str]:
        """The queues that somebody has declared."""
        for key in self._redis.scan_iter(f"{self._prefix}{_BINDINGS}*", count=1_000, _type="set"):
            for binding in self._redis.smembers(key):
                yield text(binding).split(_SEPARATOR)[-1]

    def queued(self, queues: Iterable[str]) -> Iterator[Any]:
        """The messages in queues, and in those beside them for granted runs; from where they come in."""
        for queue in sorted({each.removesuffix(GRANTED) for each in queues}):
            for name in (queue, queue + GRANTED):
                for step in self._channel.priority_steps:
                    key = self._prefix + self._channel._q_for_pri(name, step)
                    yield from map(_parsed, _pages(self._redis, key))

    def taken(self, unacked: set[str]) -> Iterator[Any]:
        """The messages that workers have taken and not acked; by the keys of some, and the common one."""
        for key in sorted({self._channel.unacked_key, *unacked}):
            for _, raw in self._redis.hscan_iter(self._prefix + key, count=_PAGE):
                yield (_parsed(raw) or [None])[0]

    def returned(self) -> Iterator[Any]:
        """The messages that went back to their queues, and that nobody has taken as far as is known."""
        returned, *_ = returned_keys(self._channel)
        for _, raw in self._redis.hscan_iter(returned, count=_PAGE):
            _, message = _parsed(raw) or [None, ""]
            yield _parsed(message)


def _noted(message: Any, seen: Whereabouts) -> bool:
    """Note whose message it is; whether that can be told."""
    task_id = _task_id_of(message)
    if task_id is not None:
        seen.note(task_id, Place.QUEUED)
    return task_id is not None


def _pages(redis: Redis, key: str) -> Iterator[Any]:
    start = 0
    while page := redis.lrange(key, start, start + _PAGE - 1):
        yield from page
        start += _PAGE


def _parsed(raw: Any) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _task_id_of(message: Any) -> str | None:
    """The task id in a message as Redis holds it, of either protocol; None where there is none to read."""
    try:
        task_id = (message.get("headers") or {}).get("id")
        if task_id is None:
            body = message["body"]
            is_packed = message["properties"].get("body_encoding") == "base64"
            task_id = json.loads(b64decode(body) if is_packed else body)["id"]
        return task_id if isinstance(task_id, str) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _task_id(member: str) -> str:
    """The task id of an attempt, or of what it holds its slots under."""
    return unquote(task_id_of(member))
