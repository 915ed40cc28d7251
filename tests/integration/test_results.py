"""Results that a pool process stores packed: as Celery stores them, also where Redis does not answer so."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, states

from bridge.local.running import RunningStack
from bridge.worker.results import store_packed
from tests.waiting import wait_until


@pytest.fixture
def client(stack: RunningStack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url) as client:
        yield client


@pytest.fixture
def backend(stack: RunningStack) -> Iterator[Any]:
    app = Celery("results", backend=stack.redis_url, set_as_current=False)
    store_packed(app.backend)
    yield app.backend
    app.backend.client.close()


@pytest.fixture
def task_id(backend: Any) -> Iterator[str]:
    task_id = secrets.token_hex(8)
    yield task_id
    backend.forget(task_id)


def test_a_result_is_stored_told_and_forgotten_in_time(
    client: redis.Redis, backend: Any, task_id: str
) -> None:
    key = backend.get_key_for_task(task_id)
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(key)
        wait_until(lambda: client.pubsub_numsub(key)[0][1] == 1, "somebody listens")
        backend.mark_as_done(task_id, {"sum": 3})
        told: list[Any] = []
        wait_until(lambda: told.append(listener.get_message()) or any(told), "the result is told")
    [message] = filter(None, told)
    assert json.loads(message["data"])["result"] == {"sum": 3}
    assert client.get(key) == message["data"]
    assert 0 < client.ttl(key) <= backend.expires
    assert backend.get_result(task_id) == {"sum": 3}


def test_what_has_succeeded_stays_so(backend: Any, task_id: str) -> None:
    backend.mark_as_done(task_id, 3)
    backend.mark_as_failure(task_id, ValueError("a second delivery"))
    assert backend.get_state(task_id) == states.SUCCESS


def test_a_result_is_stored_though_its_connection_was_cut(
    client: redis.Redis, backend: Any, task_id: str
) -> None:
    for state in (states.STARTED, states.FAILURE, states.SUCCESS):
        backend.store_result(task_id, None, state)
        assert backend.get_state(task_id) == state
        client.client_kill_filter(_type="normal", skipme=True)


def test_who_finds_the_connection_taken_stores_by_the_client(
    client: redis.Redis, backend: Any, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.own_connection.OwnConnection._take", lambda self: False)
    backend.mark_as_done(task_id, 3)
    assert backend.get_result(task_id) == 3


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
def test_a_result_is_stored_celerys_way_where_redis_does_not_answer(
    backend: Any, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.own_connection.OwnConnection._exchange", silent)
    backend.mark_as_done(task_id, 3)
    assert backend.get_result(task_id) == 3


def silent(connection: Any, commands: Any) -> Any:
    raise redis.TimeoutError("no answer")


def test_a_backend_of_the_users_own_is_left_alone() -> None:
    app = Celery("results", backend="cache+memory://", set_as_current=False)
    store_packed(app.backend)
    assert "get" not in vars(app.backend)
