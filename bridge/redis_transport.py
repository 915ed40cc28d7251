"""kombu's Redis transport, with two things done once or packed that it does anew for each message, and
messages that go back to their queues kept besides.

It takes a message in one command, and notes in another that it is taken: a worker that is killed between
the two takes the message with it. `bridge.limits.custody` sees to those that were kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import Celery
from kombu.message import Message
from kombu.transport import virtual
from kombu.utils.json import dumps
from redis import Redis, RedisError

from bridge.own_connection import Command, OwnConnection

IN_TIME: Final = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "max_retries": 1}
"""Transport options of a connection for who must not wait for a Redis that hangs, or is away."""


def is_of_redis(channel: Any) -> bool:
    """Whether this is a channel to one Redis, of which all here holds."""
    return isinstance(getattr(channel, "client", None), Redis) and hasattr(channel, "unacked_key")


def prepare(channel: Any) -> None:
    """Have a worker's channel keep its client, note packed what it takes, and keep what it gives back."""
    keep_client(channel)
    keep_returned(channel)
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
    returned, returned_index, _ = returned_keys(channel)

    def noting(message: Message, tag: str) -> None:
        info, raw = message.delivery_info, message._raw  # type: ignore[attr-defined]
        noted = dumps([raw, info["exchange"], info["routing_key"]])  # type: ignore[no-untyped-call]
        commands: list[Command] = [("ZADD", index, time.time(), tag), ("HSET", unacked, tag, noted)]
        if _is_redelivered(raw):
            commands += [("HDEL", returned, tag), ("ZREM", returned_index, tag)]
        try:
            connection.transact(commands)
        except RedisError:  # kombu's way tells what comes of it; to note the same twice does no harm
            note(message, tag)
        else:
            virtual.QoS.append(channel.qos, message, tag)  # type: ignore[no-untyped-call]

    channel.qos.append = noting


def keep_returned(channel: Any) -> None:
    """Have a channel keep besides what it puts at the consuming end of a queue, until somebody has noted that
    he has taken it.

    What is rejected goes to the other end, where it would have to be looked for behind all others.
    """
    if "_do_restore_message" in vars(channel) or not is_of_redis(channel):
        return  # kept already, or by nobody looked after
    restore = channel._do_restore_message
    returned, index, _ = returned_keys(channel, prefix="")  # the client adds it

    def restoring(raw: Any, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False) -> None:
        restore(raw, exchange, routing_key, pipe, leftmost)
        if leftmost or not _is_redelivered(raw):
            return
        queues = list(channel._lookup(exchange, routing_key))
        if len(queues) != 1:
            return
        tag, priority = raw["properties"]["delivery_tag"], channel._get_message_priority(raw, reverse=False)
        key = channel.global_keyprefix + channel._q_for_pri(queues[0], priority)
        kept = dumps([key, dumps(raw)])  # type: ignore[no-untyped-call]
        pipe.hset(returned, tag, kept).zadd(index, {tag: 0})

    channel._do_restore_message = restoring


def go_first(message: Any) -> None:
    """Have a message that is rejected, then or later, come again before all others, not behind them."""
    qos: Any = getattr(message.channel, "qos", None)
    if not hasattr(qos, "restore_by_tag"):
        return
    reject, restore = message.reject, qos.restore_by_tag

    def rejecting(requeue: bool = False) -> None:
        qos.restore_by_tag = lambda tag, client=None, leftmost=False: restore(tag, client)
        try:
            reject(requeue=requeue)
        finally:
            del qos.restore_by_tag

    message.reject = rejecting


def returned_keys(channel: Any, prefix: str | None = None) -> tuple[str, str, str]:
    """The keys of messages that went back to their queues, of when each was last seen there, and of when
    messages were last in danger of being lost."""
    before = channel.global_keyprefix if prefix is None else prefix
    return f"{before}returned", f"{before}returned_index", f"{before}returned_in_danger"


def _is_redelivered(raw: Any) -> bool:
    return bool(raw["properties"].get("delivery_info", {}).get("redelivered"))


def unacked_keys(channel: Any) -> tuple[str, str]:
    """The keys of a channel's unacked messages, and of when each was taken."""
    prefix = channel.global_keyprefix
    return prefix + channel.unacked_key, prefix + channel.unacked_index_key
