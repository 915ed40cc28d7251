"""How a parked message goes back to the broker.

Where the broker is the very Redis that keeps the limits, the Lua commands move messages themselves: out
of the broker's unacked messages when a run is parked, to the consuming end of its queue when it is
granted, so that it starts next. Any other broker is handed the message again by some worker, through
a queue of its own beside the run's queue, `<queue>.granted`, so that it does not wait behind others.
"""

from __future__ import annotations

import logging
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, uuid
from kombu.entity import Exchange, Queue
from kombu.message import Message
from kombu.serialization import prepare_accept_content
from kombu.transport import virtual
from kombu.utils.json import dumps, loads
from redis import Redis

from bridge.limits.answers import Parcel, Unacked
from bridge.redis_transport import is_of_redis, prepare, unacked_keys

log = logging.getLogger(__name__)

PARKED: Final = "taskcast-parked"
"""Header of a message that was parked: the epoch of the limits' Redis, and the member."""

GRANTED: Final = ".granted"

_WITHOUT_PRIORITY: Final = 0
_NOT_THE_SAME: Final = (
    "the broker is not the limits' Redis (it is %s): limits hold all the same, but a run that waits is kept"
    " in that Redis alone, and comes back through a second queue, <queue>%s, behind what workers have fetched"
)
_CONFIRMED_WITHIN: Final = 5.0
_PROPERTIES: Final = frozenset(
    {"priority", "correlation_id", "reply_to", "delivery_mode", "message_id", "type", "app_id"}
)
"""Of a message that is handed over again. Its expiry is for the limits to see to, not for the broker."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the header of a parked message says."""

    epoch: str = ""
    member: str = ""

    @classmethod
    def of(cls, headers: Any) -> Mark:
        raw = (headers or {}).get(PARKED)
        parts = raw.split(" ") if isinstance(raw, str) else []
        return cls(*parts) if len(parts) == 2 else _UNMARKED

    def __str__(self) -> str:
        return f"{self.epoch} {self.member}"


_UNMARKED: Final = Mark()


class Broker:
    """A worker's broker, as far as limits are concerned."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._consumer: Any = None
        self._counts_up = True
        self._producer: Any = None
        self.is_limits_redis = False

    def attach(self, consumer: Any, limits: Redis) -> None:
        """Find out whether the broker is the limits' Redis; else consume what is granted, too."""
        self._consumer = consumer
        self._counts_up = consumer.connection.transport.driver_type == "redis"
        channel = consumer.connection.default_channel
        self.is_limits_redis = _is_same(channel, limits)
        if is_of_redis(channel):
            prepare(channel)
            self._prepare_reconnections()
        if not self.is_limits_redis:
            log.warning(_NOT_THE_SAME, consumer.connection.transport.driver_type, GRANTED)
            for name in list(self._app.amqp.queues.consume_from):
                self._consume_granted(name)

    def _prepare_reconnections(self) -> None:
        """Each connection has a channel of its own."""
        consumer, connect = self._consumer, self._consumer.connect

        def connecting() -> Any:
            connection = connect()
            prepare(connection.default_channel)
            return connection

        consumer.connect = connecting

    def priority(self, message: Message) -> int:
        """The priority of a message from 0, which is first: Redis counts up, AMQP down."""
        given = message.properties.get("priority") or _WITHOUT_PRIORITY
        bounded = max(0, min(9, given)) if isinstance(given, int) else _WITHOUT_PRIORITY
        return bounded if self._counts_up else 9 - bounded

    def parcel(self, message: Message, mark: Mark, meta: str, expires_at: int) -> Parcel:
        """The message, marked and ready to be parked."""
        queue = self._queue_of(message)
        if not self.is_limits_redis:
            if not self._consumer.task_consumer.consuming_from(_granted(queue).name):
                self._consumer.call_soon(self._consume_granted, queue)  # an operator added it meanwhile
            envelope = _envelope(message, mark)
            envelope["properties"]["queue"] = queue
            return Parcel(_bytes(envelope), "", meta, expires_at)
        channel = message.channel
        raw: dict[str, Any] = dict(message._raw)  # type: ignore[attr-defined]
        raw["headers"] = {**raw["headers"], PARKED: str(mark)}
        raw["properties"] = {**raw["properties"], "delivery_tag": uuid()}
        unacked = _unacked(message)
        return Parcel(_bytes(raw), channel.global_keyprefix + queue, meta, expires_at, unacked)

    def unacked(self, message: Message) -> Unacked | None:
        """Where the message is until it is acked, if a Lua command may do that; else None.

        In a prefork worker only, whose one loop does all with the connection; a parked message has none.
        """
        is_parked = message.channel is None
        if not self.is_limits_redis or not self._consumer.hub or is_parked or message.acknowledged:
            return None
        return _unacked(message)

    def acked(self, message: Message) -> None:
        """Let Celery's transport know that a message was acked without it."""
        virtual.QoS.ack(message.channel.qos, message.delivery_tag)  # type: ignore[no-untyped-call]
        message._state = "ACK"

    def publish(self, raw: bytes) -> None:
        """Hand a granted message to the broker again."""
        envelope = loads(raw.decode())  # type: ignore[no-untyped-call]
        properties = dict(envelope["properties"])
        queue = _granted(properties.pop("queue"))
        properties.pop("body_encoding", None)
        self._confirmed().publish(
            b64decode(envelope["body"]),
            exchange="",
            routing_key=queue.name,
            declare=[queue],
            content_type=envelope["content-type"],
            content_encoding=envelope["content-encoding"],
            headers=envelope["headers"],
            retry=True,
            retry_policy={"max_retries": 1},
            confirm_timeout=_CONFIRMED_WITHIN,
            **properties,
        )

    def message(self, raw: bytes) -> Message:
        """A parked message, to be ended without having been started."""
        envelope = loads(raw.decode())  # type: ignore[no-untyped-call]
        body = envelope["body"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = b64decode(body)
        return Message(  # type: ignore[no-untyped-call]
            body=body,
            content_type=envelope["content-type"],
            content_encoding=envelope["content-encoding"],
            headers=envelope["headers"],
            properties=envelope["properties"],
            delivery_info=envelope["properties"].get("delivery_info") or {},
            accept=prepare_accept_content(self._app.conf.accept_content),  # type: ignore[no-untyped-call]
        )

    def _consume_granted(self, name: str) -> None:
        queue = _granted(name)
        self._app.amqp.queues.select_add(queue)
        self._consumer.add_task_queue(queue.name)

    def _confirmed(self) -> Any:
        """A producer whose messages are at the broker when `publish` returns: nobody else keeps them then."""
        if self._producer is None:
            connection = self._app.connection_for_write(transport_options={"confirm_publish": True})
            self._producer = self._app.amqp.Producer(connection)
        return self._producer

    def _queue_of(self, message: Message) -> str:
        """The queue that the message was taken from."""
        channel, info = message.channel, message.delivery_info
        for name, tag in getattr(self._consumer.task_consumer, "_active_tags", {}).items():
            if tag == info.get("consumer_tag"):
                return str(name)
        if not hasattr(channel, "_lookup"):
            return str(info["routing_key"])
        found = channel._lookup(info["exchange"], info["routing_key"])
        active = [queue for queue in found if queue in channel._active_queues]
        return str((active or found)[0])


def own_queue(queue: str) -> str:
    """The queue that a run belongs to, also when it came through the one for granted runs."""
    return queue.removesuffix(GRANTED)


def _granted(queue: str) -> Queue:
    name = queue if queue.endswith(GRANTED) else f"{queue}{GRANTED}"
    exchange = Exchange("")  # type: ignore[no-untyped-call]
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


def _is_same(channel: Any, limits: Redis) -> bool:
    """Whether the channel's broker is the Redis of the limits, database and all: by leaving a word there."""
    if not is_of_redis(channel):
        return False
    key, word = f"taskcast:probe:{secrets.token_hex(8)}", secrets.token_hex(8)
    limits.set(key, word, px=5_000)
    found = Redis(connection_pool=channel.client.connection_pool).get(key)  # no prefix of the broker's keys
    limits.delete(key)
    return found in (word, word.encode())


def _bytes(envelope: dict[str, Any]) -> bytes:
    return str(dumps(envelope)).encode()  # type: ignore[no-untyped-call]


def _unacked(message: Message) -> Unacked:
    return Unacked(*unacked_keys(message.channel), message.delivery_tag)


def _envelope(message: Message, mark: Mark) -> dict[str, Any]:
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    headers = {**message.headers, PARKED: str(mark)}
    headers.pop("compression", None)  # the body has been unpacked
    properties = {name: value for name, value in message.properties.items() if name in _PROPERTIES}
    return {
        "body": b64encode(body).decode(),
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "headers": headers,
        "properties": {**properties, "body_encoding": "base64"},
    }
