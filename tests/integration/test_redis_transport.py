"""What is done to kombu's Redis transport: a client that is kept, and messages that are noted packed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection
from redis.exceptions import ResponseError

from bridge.extension import Bridge
from bridge.local.running import RunningStack
from bridge.redis_transport import keep_client, note_packed, unacked_keys
from bridge.testing import MemoryOutbox


@pytest.fixture
def client(stack: RunningStack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url) as client:
        yield client


@pytest.fixture(params=["", "prefix-"])
def channel(request: pytest.FixtureRequest, stack: RunningStack, client: redis.Redis) -> Iterator[Any]:
    name = f"test-{secrets.token_hex(4)}"
    options = {
        "unacked_key": f"{name}-unacked",
        "unacked_index_key": f"{name}-index",
        "global_keyprefix": request.param,
    }
    with Connection(stack.redis_url, transport_options=options) as connection:
        channel: Any = connection.default_channel
        note_packed(channel)
        yield channel
    client.delete(*unacked_keys(channel))


def taken(channel: Any) -> Any:
    """A message that the channel has taken."""
    properties = {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "q"}}
    raw = {"body": "[]", "headers": {"id": "one"}, "properties": properties}
    message = channel.Message(raw, channel=channel)
    channel.qos.append(message, message.delivery_tag)
    return message


def test_the_brokers_channel_keeps_one_client_as_long_as_its_pool(stack: RunningStack) -> None:
    with Connection(stack.redis_url) as connection:
        channel: Any = connection.default_channel
        keep_client(channel)
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()


def test_who_publishes_with_a_bridge_keeps_the_client(stack: RunningStack, client: redis.Redis) -> None:
    app = Celery("publisher", broker=stack.redis_url, set_as_current=False)
    app.conf.task_default_queue = queue = f"test-{secrets.token_hex(4)}"
    bridge = Bridge(app, outbox=MemoryOutbox())
    try:
        for _ in range(2):
            app.send_task("anything")
        with app.producer_or_acquire() as producer, producer.channel.conn_or_acquire() as kept:
            with producer.channel.conn_or_acquire() as again:
                assert kept is again
            assert app.producer_or_acquire(producer).__enter__() is producer
        assert client.llen(queue) == 2
    finally:
        bridge.close()
        app.close()
        client.delete(queue)


def test_a_message_is_noted_as_kombu_notes_it(client: redis.Redis, channel: Any) -> None:
    unacked, index = unacked_keys(channel)
    message = taken(channel)
    noted = client.hget(unacked, "tag")
    assert json.loads(noted) == [message._raw, "", "q"]
    assert channel.qos._delivered["tag"] is message
    client.delete(unacked)
    type(channel.qos).append(channel.qos, message, "tag")
    assert client.hget(unacked, "tag") == noted
    channel.qos.ack("tag")
    assert not client.exists(unacked, index)


def test_a_message_is_noted_though_the_connection_was_cut(client: redis.Redis, channel: Any) -> None:
    unacked, index = unacked_keys(channel)
    for _ in range(3):
        taken(channel)
        assert client.hkeys(unacked) == client.zrange(index, 0, -1) == [b"tag"]
        client.delete(unacked, index)
        client.client_kill_filter(_type="normal", skipme=True)


def test_a_message_is_noted_kombus_way_where_redis_does_not_answer(
    client: redis.Redis, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unacked, index = unacked_keys(channel)
    monkeypatch.setattr("bridge.own_connection.OwnConnection._exchange", silent)
    taken(channel)
    assert client.hkeys(unacked) == client.zrange(index, 0, -1) == [b"tag"]
    channel.qos.ack("tag")


def silent(connection: Any, commands: Any) -> Any:
    raise redis.TimeoutError("no answer")


def test_a_message_that_could_not_be_noted_is_an_error(client: redis.Redis, channel: Any) -> None:
    unacked, _ = unacked_keys(channel)
    client.set(unacked, "no hash")
    with pytest.raises(ResponseError):
        taken(channel)
    assert "tag" not in channel.qos._delivered
