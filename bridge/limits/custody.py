"""Messages that a worker has taken from a Redis broker and not acked yet, and how they come back.

Left to itself, the Redis transport keeps such messages of all workers together, and gives those of a dead
worker back after the visibility timeout, an hour or more. Here each worker keeps its own, under keys that
are registered beside the limits, so that any other worker gives them back as soon as that one is dead.
What was given back is kept besides until it is taken, as a worker that dies in between takes it along.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.worker.state import active_requests, reserved_requests, scheduled_requests
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from bridge.backoff import Outage
from bridge.redis_transport import IN_TIME, is_of_redis, keep_returned, returned_keys
from bridge.scripts import milliseconds, source, text

log = logging.getLogger(__name__)

_OPTIONS: Final = ("unacked_key", "unacked_index_key")
_GONE_FOR: Final = 3
"""Leases after which a message that is gone was not lost with a worker, which would be known to be dead."""


class Custody:
    """The unacked messages of this worker, and those of dead ones."""

    def __init__(self, app: Celery, redis: Redis, root: str, worker: str) -> None:
        self._app, self._redis, self._worker = app, redis, worker
        self._register, self._workers = f"{root}unacked", f"{root}workers"
        self._consumer: Any = None
        self._connection: Any = None
        self._was_cut = False
        self._outage = Outage("broker", "what dead workers had taken waits", timedelta(seconds=1))
        self._lease = timedelta()
        self._strays: set[str] = set()
        given = app.conf.broker_transport_options or {}
        is_redis = self._is_redis = app.connection_for_read().transport.driver_type == "redis"
        self.keys = (f"unacked:{worker}", f"unacked_index:{worker}") if is_redis else None
        if self.keys and not any(option in given for option in _OPTIONS):
            own = dict(zip(_OPTIONS, self.keys, strict=True))
            app.conf.broker_transport_options = {**given, **own}
        else:  # who sets them keeps Celery's way
            self.keys = None

    def attach(self, consumer: Any, lease: timedelta) -> None:
        """Before the first message is taken."""
        if self.keys and self._consumer is None:
            self._keep_at_connection_loss(consumer)
        self._consumer, self._lease = consumer, lease
        seconds: Any = self._redis.time()
        self._redis.zadd(self._workers, {self._worker: 1000 * (seconds[0] + lease.total_seconds())}, nx=True)
        self.register()  # as a worker that lives

    def register(self) -> None:
        """Tell where this worker's messages are; again and again, as Redis may have been emptied."""
        if self.keys:
            self._redis.hset(self._register, self._worker, json.dumps(self.keys))

    def restore_orphans(self) -> int:
        """Give back what dead workers had taken; returns how many messages."""
        if not self._is_redis:
            return 0
        try:
            found = restore_orphans(
                self._broker(), self._redis, self._register, self._workers, self._lease, asking=self._worker
            )
        except (RedisError, OperationalError) as error:  # the limits' Redis may answer, and the broker not
            self._outage.failed(error)  # asked again with the next beat
            return 0
        self._outage.healed()
        return found

    def restore_strays(self) -> int:
        """Give back what this worker had taken over a connection that broke; returns how many messages."""
        consuming = None if self._consumer is None else self._consumer.task_consumer
        if not self.keys or consuming is None:
            return 0  # not open yet, or without a connection
        channel: Any = self._broker().default_channel
        if self._was_cut:
            _look_for_returned(channel, self._lease, in_danger=True)
            self._was_cut = False
        tags = {text(tag) for tag in channel.client.zrange(self.keys[1], 0, -1)}
        strays = tags - _known_tags(consuming.channel)
        lost = strays & self._strays  # a message on its way in is not known yet
        self._strays = strays - lost
        return _give_back(channel, self.keys, lost)

    def close(self) -> None:
        """Nobody asks any more."""
        if self._connection is not None:
            self._connection.release()

    def _broker(self) -> Any:
        if self._connection is None:
            self._connection = broker_in_time(self._app)
        return self._connection

    def _keep_at_connection_loss(self, consumer: Any) -> None:
        """Have nothing given back or acked over a connection that broke: what executes goes on, strays are
        found.

        Celery 5.7 does both after kombu has let go of the transport: the worker ends with an AttributeError.
        """
        lost = consumer.on_connection_error_after_connected

        def kept(error: BaseException) -> None:
            self._was_cut = True
            for channel in getattr(consumer.connection.transport, "channels", None) or ():
                channel.do_restore = False
                channel.basic_ack = channel.basic_reject = _let_go
            lost(error)

        consumer.on_connection_error_after_connected = kept


def _known_tags(channel: Any) -> set[str]:
    known = {str(tag) for tag in channel.qos._delivered}
    for requests in (active_requests, reserved_requests, scheduled_requests):
        known |= {str(request.message.delivery_tag) for request in tuple(requests)}
    return known


def _let_go(delivery_tag: str, *_: Any, **__: Any) -> None:
    log.info("message %s stays unacked, its connection broke; it will come again", delivery_tag)


def broker_in_time(app: Celery) -> Any:
    """A connection to the broker, for who must not wait for it for ever."""
    return app.connection_for_write(transport_options=IN_TIME)


def restore_orphans(
    broker: Any, redis: Redis, register: str, workers: str, lease: timedelta, asking: str = ""
) -> int:
    """Give back the messages of workers that are registered, and not among those that live; and once more
    those that one of these took along.

    A worker that asks lives, whatever the others take it for.

    Args:
        broker: a connection to it.
        lease: how long it may take, about, until a worker that died is known to be dead.
    """
    registered: dict[Any, Any] = redis.hgetall(register)
    dead = [
        (worker, json.loads(keys))
        for worker, keys in registered.items()
        if text(worker) != asking and redis.zscore(workers, text(worker)) is None
    ]
    channel = broker.default_channel
    found = sum(_restore(channel, keys) for _, keys in dead)
    again = _look_for_returned(channel, lease, in_danger=bool(dead))
    for worker, _ in dead:
        redis.hdel(register, worker)
    if found:
        log.warning("%d messages that dead workers had taken are in their queues again", found)
    return found + again


def _restore(channel: Any, keys: Any) -> int:
    return _give_back(channel, keys, [text(tag) for tag in channel.client.zrange(keys[1], 0, -1)])


def _give_back(channel: Any, keys: Any, tags: Any) -> int:
    """Put messages back at the consuming end of their queues, the oldest first in line."""
    keep_returned(channel)
    qos = channel.QoS(channel)
    vars(qos).update(zip(_OPTIONS, keys, strict=True))
    for tag in reversed(list(tags)):
        qos.restore_by_tag(tag)
    return len(tags)


def _look_for_returned(channel: Any, lease: timedelta, in_danger: bool) -> int:
    """Give back once more what was lost as somebody took it; returns how many messages."""
    if not is_of_redis(channel):
        return 0
    redis = Redis(connection_pool=channel.client.connection_pool)  # adds no prefix by itself
    look = redis.register_script(source("look_for_returned"))
    danger = "1" if in_danger else ""
    again = int(look(keys=returned_keys(channel), args=[danger, _GONE_FOR * milliseconds(lease)]))
    if again:
        log.warning("%d messages were lost as somebody took them, and are in their queues again", again)
    return again
