"""Checkpoints in a real Redis: fenced, bounded in time, and there when Redis has no memory left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from bridge.appender import Appender
from bridge.checkpoint import Checkpoint
from bridge.checkpoints import checkpoint_key
from bridge.events import Patch, run_uuid
from bridge.lifecycle import Identity
from bridge.outbox import Outbox, RedisOutbox
from bridge.run import Run
from bridge.settings import BridgeSettings, OutboxSettings
from bridge.testing import MemoryOutbox
from tests.acceptance.limits.fleet import Server
from tests.redis_server import leave_no_room, redis_server, url_of

RUN = run_uuid("run")


@pytest.fixture(params=["redis", "memory"])
def outbox(request: pytest.FixtureRequest, settings: BridgeSettings) -> Outbox:
    """An outbox, and its twin in memory."""
    return RedisOutbox(settings.outbox) if request.param == "redis" else MemoryOutbox()


@pytest.fixture
def client(settings: BridgeSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.outbox.redis_url) as made:
        yield made


def begun(outbox: Outbox, attempt: int, nesting: int = 0) -> Checkpoint:
    """The checkpoint in the hands of an execution that begins."""
    checkpoint = Checkpoint(outbox, RUN, attempt, nesting)
    checkpoint.take()
    return checkpoint


def told(current: int, attempt: int) -> list[tuple[str, Patch]]:
    return [(RUN, Patch(RUN, attempt, 0.0, {"current": current, "total": 100}))]


def test_what_was_told_since_the_checkpoint_goes_with_it(outbox: Outbox) -> None:
    first = begun(outbox, 1)
    outbox.append(told(5, 1))
    assert first.save(b"7", (7, 100))
    outbox.append(told(9, 1))
    second = Checkpoint(outbox, RUN, 2)
    assert (second.take(), second.value) == ((9, 100), 7)


@pytest.mark.parametrize(
    ("outbox", "elsewhere", "attempt"),
    [("redis", True, 1), ("redis", True, 2), ("redis", False, 2), ("memory", False, 2)],
    indirect=["outbox"],
)
def test_an_overtaken_execution_changes_neither_state_nor_bar(
    outbox: Outbox, settings: BridgeSettings, elsewhere: bool, attempt: int
) -> None:
    """Overtaken by the next attempt, or by the same one once more; in another process, or in its own."""
    own = RedisOutbox(settings.outbox) if elsewhere else outbox
    first = begun(own, 1)
    assert first.save(b"1", (10, 100))
    second = begun(outbox, attempt)
    assert not first.save(b"2", (20, 100))
    own.append(told(30, 1))
    assert second.save(b"3", (11, 100))
    own.append(told(40, 1))
    third = Checkpoint(outbox, RUN, 3)
    assert (third.take(), third.value) == ((11, 100), 3)
    assert not second.save(b"4", None)


def test_an_execution_that_began_before_any_checkpoint_overtakes_all_the_same(outbox: Outbox) -> None:
    first, second = begun(outbox, 1), begun(outbox, 2)
    assert not first.save(b"1", None)
    assert (Checkpoint(outbox, RUN, 3).take(), second.value) == (None, None)


def test_each_replacement_has_its_own(outbox: Outbox) -> None:
    replaced = begun(outbox, 1)
    assert replaced.save(b"1", None)
    replacement = begun(outbox, 1, nesting=1)
    assert replacement.value is None
    assert replacement.save(b"2", None)
    assert replaced.save(b"3", None)
    assert (begun(outbox, 2).value, begun(outbox, 2, nesting=1).value) == (3, 2)


def test_a_run_that_is_replaced_time_and_again_keeps_what_can_come_again(
    settings: BridgeSettings, client: redis.Redis
) -> None:
    outbox = RedisOutbox(settings.outbox)
    for nesting in range(9):
        begun(outbox, 1, nesting).save(b"1", None)
    kept = {field.decode() for field in client.hkeys(checkpoint_key(settings.outbox.prefix, RUN))}  # type: ignore[union-attr]
    assert {field.partition(":")[2] for field in kept} == {"7", "8"}


@pytest.mark.parametrize("act", ["take", "save"])
def test_it_lives_for_its_time_from_when_it_was_last_used(
    settings: BridgeSettings, client: redis.Redis, act: str
) -> None:
    outbox, key = RedisOutbox(settings.outbox), checkpoint_key(settings.outbox.prefix, RUN)
    whole = settings.outbox.checkpoint_ttl.total_seconds()
    first = begun(outbox, 1)
    client.pexpire(key, 5_000)
    if act == "take":
        begun(outbox, 2)
    else:
        first.save(b"1", None)
    assert whole - 60 < int(client.ttl(key)) <= whole


def test_nothing_is_made_by_a_report_when_what_was_kept_is_gone(
    settings: BridgeSettings, client: redis.Redis
) -> None:
    outbox, key = RedisOutbox(settings.outbox), checkpoint_key(settings.outbox.prefix, RUN)
    first = begun(outbox, 1)
    first.save(b"1", (1, 100))
    client.delete(key)
    outbox.append(told(5, 1))
    assert not client.exists(key)
    assert first.save(b"2", (6, 100))


@pytest.fixture
def run_on() -> Iterator[Callable[[OutboxSettings], Run]]:
    made: list[Appender] = []

    def make(settings: OutboxSettings) -> Run:
        outbox = RedisOutbox(settings)
        made.append(Appender(outbox, settings))
        return Run(Identity(RUN, RUN, "t"), 2, made[-1], outbox, 1, is_first=False)

    yield make
    for appender in made:
        appender.close()


def test_a_redis_without_memory_still_gives_what_it_has(
    tmp_path: Path, run_on: Callable[[OutboxSettings], Run], caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(tmp_path / "redis") as server:
        settings = OutboxSettings(redis_url=url_of(server), prefix="full")
        run_on(settings).checkpoint(5)
        leave_no_room(server)
        run = run_on(settings)
        assert run.last_checkpoint == 5
        with caplog.at_level(logging.WARNING):
            run.checkpoint(6)
        assert "Redis took no checkpoint" in caplog.text
        assert run_on(settings).last_checkpoint == 5


def test_the_first_checkpoint_once_redis_is_back_is_kept(
    tmp_path: Path, run_on: Callable[[OutboxSettings], Run], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(tmp_path / "redis", durable=True)
    try:
        settings = OutboxSettings(redis_url=server.url, prefix="back")
        run = run_on(settings)
        run.checkpoint(1)
        server.kill()
        server.start()  # the connection that the run had is broken
        run.checkpoint(2)
        assert run_on(settings).last_checkpoint == 2
        server.kill()
        for number in range(3, 9):
            run.checkpoint(number)
        assert caplog.text.count("would start from an older one") == 1
        server.start()
        other = run_on(settings)
        assert other.last_checkpoint == 2
        other.checkpoint(9)
        assert run_on(settings).last_checkpoint == 9
    finally:
        server.end()
