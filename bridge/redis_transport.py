"""kombu's Redis transport, with two things done once or packed that it does anew for each message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.message import Message
from kombu.transport import virtual
from kombu.utils.json import dumps
from redis import RedisError

from bridge.own_connection import OwnConnection


def hasten(channel: Any) -> None:
    """Have the channel of a worker keep its client, and note packed what it takes."""
    keep_client(channel)
    if "append" not in vars(channel.qos):
        note_packed(channel)


def keep_client(channel: Any) -> None:
    """Have a channel make one client a pool, not one a command, which takes longer than most commands."""
    if "_create_client" in vars(channel) or not hasattr(channel, "_create_client"):
        return  # kept already, or none of Redis
    make, kept = channel._create_client, None

    def create(asynchronous: bool = False) -> Any:
        nonlocal kept
        if asynchronous:
            return make(asynchronous=True)
        if kept is None or kept.connection_pool is not channel.pool:
            kept = make()
        return kept

    channel._create_client = create


def keeping_clients(app: Celery) -> Callable[..., Any]:
    """`app.producer_or_acquire`, by which messages are published, with such channels."""
    acquire = app.producer_or_acquire

    @contextmanager
    def producer_or_acquire(producer: Any = None) -> Iterator[Any]:
        with acquire(producer) as found:
            # The public `default_channel` would connect, outside of what the caller's retry policy is for.
            channel = getattr(found.__connection__, "_default_channel", None)
            if channel is not None:
                keep_client(channel)
            yield found

    return producer_or_acquire


def note_packed(channel: Any) -> None:
    """Have a channel note packed, on a connection kept for it, that a message is taken and not acked yet."""
    connection, note = OwnConnection(channel._create_client()), channel.qos.append
    unacked, index = unacked_keys(channel)

    def noting(message: Message, tag: str) -> None:
        info, raw = message.delivery_info, message._raw  # type: ignore[attr-defined]
        noted = dumps([raw, info["exchange"], info["routing_key"]])  # type: ignore[no-untyped-call]
        zadd, hset = ("ZADD", index, time.time(), tag), ("HSET", unacked, tag, noted)
        try:
            connection.transact([zadd, hset])
        except RedisError:  # kombu's way tells what comes of it; to note the same twice does no harm
            note(message, tag)
        else:
            virtual.QoS.append(channel.qos, message, tag)  # type: ignore[no-untyped-call]

    channel.qos.append = noting


def unacked_keys(channel: Any) -> tuple[str, str]:
    """The keys of a channel's unacked messages, and of when each was taken."""
    prefix = channel.global_keyprefix
    return prefix + channel.unacked_key, prefix + channel.unacked_index_key
