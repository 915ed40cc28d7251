"""The quick ways of the Lua commands, and the connection that they go by."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import redis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from bridge.limits.answers import Ask, Parcel, Unacked
from bridge.limits.scripts import LimitScripts
from bridge.local.running import RunningStack
from bridge.own_connection import OwnConnection

LEASE = timedelta(minutes=1)


@pytest.fixture
def client(stack: RunningStack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url, socket_timeout=0.5) as client:
        yield client


@pytest.fixture
def key(client: redis.Redis) -> Iterator[str]:
    key = f"test-{secrets.token_hex(4)}"
    yield key
    client.delete(key)


@pytest.fixture
def scripts(client: redis.Redis) -> Iterator[LimitScripts]:
    scripts = LimitScripts(client, f"test-{secrets.token_hex(4)}")
    scripts.declare({"slots|a": "1", "slots|b": "1"}, LEASE, LEASE, nothing_runs=True)
    yield scripts
    for key in client.scan_iter(f"{scripts.root}*"):
        client.delete(key)


def ask(name: str, *gates: str) -> Ask:
    return Ask(f"{name}:1:0", "w", " ".join(("task|t|", *gates)), (1,) * len(gates))


def test_nobody_overtakes_a_lane_that_stands_at_a_gate_with_room(
    client: redis.Redis, scripts: LimitScripts
) -> None:
    scripts.admit(ask("one", "slots|a|"))
    scripts.admit(ask("two", "slots|a|"), Parcel(b"message", "queue", "{}"))
    client.hset(f"{scripts.root}declared", "slots|a", "2")
    assert scripts.admit(ask("three", "slots|b|", "slots|a|")).word == "full"


def test_a_script_that_redis_forgot_is_brought_again(client: redis.Redis, scripts: LimitScripts) -> None:
    holder = scripts.admit(ask("one", "slots|a|")).holder
    client.script_flush()
    assert scripts.admit(ask("two", "slots|a|")).word == "full"
    scripts.release("w", holder, "task|t| slots|a|")
    assert scripts.admit(ask("three", "slots|a|")).word == "run"


def test_an_acked_message_is_out_of_the_brokers_hands(
    client: redis.Redis, scripts: LimitScripts, key: str
) -> None:
    index = f"{key}-index"
    client.hset(key, mapping={"one": "message", "two": "message"})
    client.zadd(index, {"one": 1, "two": 2})
    for _ in range(2):  # a repeat is harmless
        scripts.ack(Unacked(key, index, "one"))
    assert (client.hkeys(key), client.zrange(index, 0, -1)) == ([b"two"], [b"two"])
    client.delete(index)


def test_a_connection_that_was_closed_while_idle_is_made_again(client: redis.Redis) -> None:
    connection, script = OwnConnection(client, idle=0), client.register_script("return KEYS[1]")
    script(keys=["known"])
    for _ in range(3):
        assert connection.call(script, ("key",)) == b"key"
        client.client_kill_filter(_type="normal", skipme=True)


def test_a_command_whose_answer_is_lost_is_not_called_again(client: redis.Redis) -> None:
    key = f"test-{secrets.token_hex(4)}"
    connection = OwnConnection(client, idle=60)
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    script(keys=[key])
    connection.call(script, (key,))
    client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(ConnectionError):
        connection.call(script, (key,))
    assert connection.call(script, (key,)) == 3
    client.delete(key)


def test_commands_that_may_come_twice_are_sent_again_when_the_connection_was_cut(
    client: redis.Redis, key: str
) -> None:
    connection = OwnConnection(client, idle=60)
    for number in range(1, 3):
        assert connection.send([("INCR", key), ("GET", key)]) == [number, b"%d" % number]
        client.client_kill_filter(_type="normal", skipme=True)


def test_an_error_among_replies_leaves_none_behind(client: redis.Redis, key: str) -> None:
    connection = OwnConnection(client)
    with pytest.raises(ResponseError):
        connection.send([("SET", key, "text"), ("INCR", key), ("GET", key)])
    assert connection.send([("GET", key)]) == [b"text"]


def test_who_finds_the_connection_taken_sends_by_the_client(client: redis.Redis, key: str) -> None:
    connection = OwnConnection(client)
    with connection._taken:
        assert connection.send([("INCR", key), ("INCR", key)]) == [1, 2]
        assert connection.transact([("INCR", key), ("INCR", key)]) == [3, 4]


def test_an_error_within_a_transaction_is_raised(client: redis.Redis, key: str) -> None:
    connection = OwnConnection(client)
    client.set(key, "text")
    with pytest.raises(ResponseError):
        connection.transact([("INCR", key)])
    assert connection.transact([("GET", key)]) == [b"text"]


def test_a_fork_uses_neither_socket_nor_lock_of_its_parent(client: redis.Redis, key: str) -> None:
    connection = OwnConnection(client)
    connection.send([("SET", key, 0)])
    with connection._taken:
        child = os.fork()
        if child == 0:
            replies = connection.send([("INCR", key)])
            os._exit(0 if replies == [1] and not connection._taken.locked() else 1)
        assert os.waitpid(child, 0) == (child, 0)
    assert connection.send([("GET", key)]) == [b"1"]


def test_a_reply_that_came_too_late_is_nobodys(
    stack: RunningStack, client: redis.Redis, scripts: LimitScripts
) -> None:
    scripts.admit(ask("one", "slots|a|"))
    with redis.Redis.from_url(stack.redis_url) as other:
        other.execute_command("CLIENT", "PAUSE", 700)
        with pytest.raises(TimeoutError):
            scripts.admit(ask("two", "slots|b|"))
        other.ping()  # the pause is over
    assert scripts.admit(ask("three", "slots|a|")).word == "full"


def test_threads_get_their_own_replies(scripts: LimitScripts) -> None:
    wrong: list[str] = []

    def stay(gate: str, limit: Callable[[int], str]) -> None:
        for number in range(300):
            answer = scripts.admit(ask(limit(number), gate))
            if answer.word != "run" or not answer.holder.startswith(limit(number)):
                wrong.append(f"{gate} {answer}")
            else:
                scripts.release("w", answer.holder, f"task|t| {gate}")

    threads = [
        threading.Thread(target=stay, args=(f"slots|{name}|", lambda number, name=name: f"{name}{number}"))
        for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fork_has_a_connection_of_its_own(scripts: LimitScripts) -> None:
    scripts.admit(ask("one", "slots|a|"))
    if (pid := os.fork()) == 0:
        os._exit(0 if scripts.admit(ask("child", "slots|b|")).word == "run" else 1)
    words = [scripts.admit(ask(f"two{number}", "slots|a|")).word for number in range(100)]
    assert os.waitpid(pid, 0)[1] == 0
    assert words == ["full"] * 100
