"""Entries that can never be written: kept with all that is known, replayed as old as they are, or dropped."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from bridge.broadcast import Broadcaster
from bridge.errors import SupabaseUnavailable
from bridge.events import LogLine, Patch, encode
from bridge.local.running import RunningStack
from bridge.outbox import RedisOutbox, partition_of, stream_key
from bridge.publisher import reader as reading
from bridge.publisher.dead import DeadEntries, UnknownDeadEntry, dead_key
from bridge.publisher.publisher import Publisher
from bridge.publisher.reader import OutboxReader
from bridge.settings import BridgeSettings
from bridge.testing import MemoryBroadcast, MemoryRows
from tests.conftest import User
from tests.database import logs, rows
from tests.integration.test_publisher import append, change, empty, new_id, opened, publishing
from tests.redis_server import leave_no_room, redis_server, url_of
from tests.waiting import eventually


@pytest.fixture
def outbox(settings: BridgeSettings) -> RedisOutbox:
    return RedisOutbox(settings.outbox)


@pytest.fixture
def client(settings: BridgeSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.outbox.redis_url) as made:
        yield made


@pytest.fixture
def dead(settings: BridgeSettings, client: redis.Redis) -> DeadEntries:
    return DeadEntries(client, settings.outbox)


@pytest.fixture
def bridging(settings: BridgeSettings) -> Any:
    """A bridge on the real rows that is done with the outbox at the block's end; nobody listens."""

    @asynccontextmanager
    async def run(broadcaster: Broadcaster | None = None) -> AsyncIterator[Publisher]:
        async with publishing(settings, broadcaster=broadcaster or MemoryBroadcast()) as publisher:
            yield publisher
            await eventually(lambda: empty(settings), "the outbox is empty")

    return run


def poison(settings: BridgeSettings, client: redis.Redis, root: str, raw: bytes) -> None:
    client.xadd(stream_of(settings, root), {"e": raw})


def stream_of(settings: BridgeSettings, root: str) -> str:
    return stream_key(settings.outbox.prefix, partition_of(root, settings.outbox.partitions))


def refused(run: str, **fields: Any) -> bytes:
    """Fields that decode and that no row takes."""
    return encode(change(run, user_id="no uuid", **fields))


async def test_a_dead_entry_keeps_all_that_is_known_of_it(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any
) -> None:
    run = new_id()
    poison(settings, client, run, b"\x00\xff")
    poison(settings, client, run, refused(run, status="queued"))
    client.xadd(stream_of(settings, run), {"foreign": "field", "x": "y"})
    [(first, _), (second, _), _] = client.xrange(stream_of(settings, run))
    before = time.time()
    async with bridging():
        pass
    garbage, by_rows, foreign = dead
    assert (garbage.raw, garbage.run_id, garbage.entry_id) == (b"\x00\xff", None, first.decode())
    assert garbage.reason == "not an outbox entry (JSONDecodeError)"
    assert (by_rows.run_id, by_rows.entry_id) == (run, second.decode())
    assert "uuid" in by_rows.reason
    assert foreign.raw == b"foreign=field x=y"
    for each in (garbage, by_rows, foreign):
        assert each.partition == str(partition_of(run, settings.outbox.partitions))
        assert each.replica == f"{socket.gethostname()}:{os.getpid()}"
        assert before - 1 <= each.at.timestamp() <= time.time() + 1


async def test_one_element_that_the_rows_refuse_and_garbage_cost_nothing_else_of_the_batch(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, client: redis.Redis, user: User,
    dead: DeadEntries, bridging: Any,
) -> None:  # fmt: skip
    runs = [new_id() for _ in range(60)]
    for run in runs:
        append(outbox, run, opened(run, user))
        poison(settings, client, run, os.urandom(20))
    poison(settings, client, runs[30], refused(runs[30], progress=5))
    for run in runs:
        append(outbox, run, change(run, "end", status="completed"))
    async with bridging() as publisher:
        await eventually(lambda: publisher.stats()["dead"] == 61, "all poison is set apart")
    found = rows(stack, runs)
    assert [found[run]["status"] for run in runs] == ["completed"] * 60
    assert all([line["message"] for line in logs(stack, run)] == ["end"] for run in runs)
    assert len(list(dead)) == 61


async def test_several_refused_entries_of_one_run_cost_none_of_the_good_ones_between_them(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, client: redis.Redis, user: User,
    dead: DeadEntries, bridging: Any,
) -> None:  # fmt: skip
    run = new_id()
    append(outbox, run, opened(run, user))
    for number, status in enumerate(("in_progress", "cancelling", "completed")):
        poison(settings, client, run, refused(run, progress=number))
        append(outbox, run, change(run, f"line {number}", current=number))
        append(outbox, run, change(run, status=status))
    async with bridging():
        pass
    row = rows(stack, [run])[run]
    assert (row["status"], row["current"], str(row["user_id"])) == ("completed", 2, user.id)
    assert [line["message"] for line in logs(stack, run)] == ["line 0", "line 1", "line 2"]
    assert len(list(dead)) == 3


async def test_the_dead_are_bounded_and_the_oldest_go(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(reading, "DEAD_LENGTH", 5)
    run = new_id()
    for number in range(20):
        poison(settings, client, run, b"%d" % number)
    async with bridging():
        pass
    assert [each.raw for each in dead] == [b"15", b"16", b"17", b"18", b"19"]


async def test_a_replay_writes_what_was_refused_once_its_reason_is_gone(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User, dead: DeadEntries,
    bridging: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As after a deployment in the wrong order: an older bridge does not know what newer workers say."""
    run = new_id()
    append(outbox, run, opened(run, user), change(run, status="in_progress", progress=10))
    with monkeypatch.context() as older:
        older.setattr("bridge.events.STATUSES", frozenset({"queued", "in_progress"}))
        append(outbox, run, change(run, "the end", status="completed"))
        async with bridging():
            pass
    assert rows(stack, [run])[run]["status"] == "in_progress"
    assert dead.replay(dead) == 1
    async with bridging():
        pass
    assert rows(stack, [run])[run]["status"] == "completed"
    assert [line["message"] for line in logs(stack, run)] == ["the end"]
    assert list(dead) == []


async def dead_state_before_newer_ones(
    settings: BridgeSettings, outbox: RedisOutbox, user: User, bridging: Any, older: pytest.MonkeyPatch
) -> str:
    """A run whose `cancelling` at 10 % is dead while `in_progress` at 70 %, told later, is in its row."""
    run = new_id()
    append(outbox, run, opened(run, user), change(run, "old", status="cancelling", progress=10))
    append(outbox, run, change(run, "new", status="in_progress", progress=70, message="now"))
    with older.context() as context:
        context.setattr("bridge.events.STATUSES", frozenset({"queued", "in_progress"}))
        async with bridging():
            pass
    return run


@pytest.mark.parametrize("same_batch", [False, True])
async def test_a_replayed_old_state_takes_nothing_newer_back(
    same_batch: bool, stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User,
    dead: DeadEntries, bridging: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = await dead_state_before_newer_ones(settings, outbox, user, bridging, monkeypatch)
    before = rows(stack, [run])[run]
    assert (before["status"], before["progress"]) == ("in_progress", 70)
    if same_batch:  # read together with what was told meanwhile, and before it
        append(outbox, run, change(run, progress=80))
    assert dead.replay(dead) == 1
    if same_batch:
        append(outbox, run, change(run, step="Topics"))
    async with bridging():
        pass
    after = rows(stack, [run])[run]
    assert after["status"] == "in_progress"
    assert (after["progress"], after["step"]) == ((80, "Topics") if same_batch else (70, None))
    assert after["message"] == "now"
    assert [line["message"] for line in logs(stack, run)] == ["new"]
    if not same_batch:
        assert after == before
    assert list(dead) == []


async def test_a_replayed_state_comes_before_what_is_read_with_it_and_was_told_later(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User, dead: DeadEntries,
    bridging: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = new_id()
    append(outbox, run, opened(run, user))
    with monkeypatch.context() as older:
        older.setattr("bridge.events.STATUSES", frozenset({"queued"}))
        append(outbox, run, change(run, "started", status="in_progress"))
        async with bridging():
            pass
    append(outbox, run, change(run, progress=80))
    assert dead.replay(dead) == 1
    async with bridging():
        pass
    row = rows(stack, [run])[run]
    assert (row["status"], row["progress"]) == ("in_progress", 80)
    assert [line["message"] for line in logs(stack, run)] == ["started"]


async def test_what_fails_again_comes_back_with_its_reason_and_keeps_its_age(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any
) -> None:
    run = new_id()
    poison(settings, client, run, b"garbage")
    poison(settings, client, run, refused(run, status="queued"))
    async with bridging():
        pass
    before = list(dead)
    for _ in range(2):
        assert dead.replay(dead) == 2
        assert list(dead) == []
        async with bridging():
            pass
    again = list(dead)
    assert [each.dead_id for each in again] != [each.dead_id for each in before]
    for name in ("raw", "reason", "partition", "entry_id"):
        assert [getattr(each, name) for each in again] == [getattr(each, name) for each in before]


async def test_a_forged_age_is_refused_and_can_not_stop_later_news(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, client: redis.Redis, user: User,
    dead: DeadEntries, bridging: Any,
) -> None:  # fmt: skip
    run = new_id()
    append(outbox, run, opened(run, user))
    forged = ["9795219829346-0", "8796093022207-0", "9" * 400, "", "-1-0", "x", "\x00", "1-0-0"]
    for first in forged:
        state = encode(change(run, "forged", status="in_progress"))
        client.xadd(stream_of(settings, run), {"e": state, "v": first})
    arrived = client.xrange(stream_of(settings, run))[1:]
    append(outbox, run, change(run, status="in_progress", progress=1))
    async with bridging():
        pass
    row = rows(stack, [run])[run]
    assert (row["status"], row["progress"]) == ("in_progress", 1)
    assert logs(stack, run) == []
    assert len(list(dead)) == len(forged)
    # What came under a false age counts as old as it can be: by the id under which it came.
    assert {each.entry_id for each in dead} == {name.decode() for name, _ in arrived}


async def test_replays_of_one_run_are_in_the_order_in_which_they_were_told(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User, dead: DeadEntries,
    bridging: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = new_id()
    with monkeypatch.context() as older:
        older.setattr("bridge.events.STATUSES", frozenset({"queued"}))
        append(outbox, run, opened(run, user), change(run, "1", status="in_progress"))
        append(outbox, run, change(run, "2", status="retrying"), change(run, "3", status="completed"))
        async with bridging():
            pass
    assert dead.replay(reversed(list(dead))) == 3
    one_by_one = settings.publisher.model_copy(update={"batch": 1})
    async with publishing(settings.model_copy(update={"publisher": one_by_one}), None, MemoryBroadcast()):
        await eventually(lambda: empty(settings), "the outbox is empty")
    assert rows(stack, [run])[run]["status"] == "completed"
    assert [line["message"] for line in logs(stack, run)] == ["1", "2", "3"]


async def test_only_what_is_named_is_replayed_or_dropped(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any
) -> None:
    for raw in (b"a", b"b", b"c"):
        poison(settings, client, "root", raw)
    async with bridging():
        pass
    a, b, c = dead
    assert dead.named([b.dead_id, b.dead_id]) == [b]
    assert dead.drop(dead.named([a.dead_id])) == 1
    assert dead.replay([a, b]) == 1, "what is gone is not appended once more"
    assert client.xlen(stream_of(settings, "root")) == 1
    assert list(dead) == [c]
    for unknown in (a.dead_id, a.dead_id.partition("-")[0], "-", "+", "x", "", "1-1\n"):
        with pytest.raises(UnknownDeadEntry, match="bridge dead` lists"):
            dead.named([c.dead_id, unknown])
    assert dead.drop(dead.named([])) == 1
    assert list(dead) == []


async def test_many_are_listed_replayed_and_dropped_in_pages(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any
) -> None:
    roots = [str(number) for number in range(450)]
    for root in roots:
        poison(settings, client, root, root.encode())
    async with bridging():
        pass
    assert sorted(each.raw for each in dead) == sorted(root.encode() for root in roots)
    assert dead.replay(dead) == 450
    assert sum(client.xlen(stream_key(settings.outbox.prefix, each)) for each in range(4)) == 450
    async with bridging():
        pass
    assert dead.drop(dead) == 450


async def test_an_entry_of_a_partition_that_is_read_no_more_is_replayed_where_a_bridge_reads(
    settings: BridgeSettings, client: redis.Redis, dead: DeadEntries, bridging: Any
) -> None:
    for partition in ("7", "x", "\u0667", "-1"):
        client.xadd(dead_key(settings.outbox.prefix), {"partition": partition, "entry": "1-0", "e": "{}"})
    assert dead.replay(dead) == 4
    async with bridging():
        pass
    assert [each.partition for each in dead if each.partition not in "0123"] == []
    assert len(list(dead)) == 4


async def test_a_redis_without_memory_still_forgets_what_was_written_and_keeps_what_was_not(
    tmp_path: Path,
) -> None:
    """If it kept everything until there is room, there would never be room."""
    with redis_server(tmp_path / "redis") as client:
        run, good = str(uuid.uuid4()), encode(Patch(str(uuid.uuid4()), 1, 0.0))
        for raw in (good, b"poison", good):
            client.xadd(stream_key("p", 0), {"e": raw})
        async with Redis.from_url(url_of(client)) as connection:
            reader = OutboxReader(connection, "p", 10)
            while not (batch := await reader.read([0])).entries:
                pass
            leave_no_room(client)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.set("x", "y")
            await reader.acknowledge(batch, {0: [run]})
            assert client.xlen(stream_key("p", 0)) == 0
            [(_, fields)] = client.xrange(dead_key("p"))
            assert fields[b"e"] == b"poison"
            assert await reader.unsent(0, 10) == [run]


async def test_a_bridge_that_starts_on_a_redis_without_memory_makes_room(
    tmp_path: Path, settings: BridgeSettings
) -> None:
    with redis_server(tmp_path / "redis") as client:
        outbox = settings.outbox.model_copy(update={"redis_url": url_of(client)})
        own = settings.model_copy(update={"outbox": outbox})
        runs = [new_id() for _ in range(50)]

        async def written(given: list[str]) -> None:
            rows = MemoryRows()
            async with publishing(own, rows, Deaf()):
                await eventually(lambda: set(given) <= rows.rows.keys(), "all runs are written")
                await eventually(lambda: lengths() == [0] * outbox.partitions, "the outbox is empty")

        def lengths() -> list[int]:
            return [client.xlen(stream_key(outbox.prefix, each)) for each in range(outbox.partitions)]

        RedisOutbox(outbox).append([(runs[0], Patch(runs[0], 1, 0.0, {"status": "queued", "channel": "c"}))])
        await written(runs[:1])
        for run in runs:
            RedisOutbox(outbox).append([(run, Patch(run, 1, 0.0, {"status": "completed", "channel": "c"}))])
        client.xadd(stream_key(outbox.prefix, 0), {"e": b"poison"})
        leave_no_room(client)
        await written(runs)
        assert client.xlen(dead_key(outbox.prefix)) == 1


class Deaf:
    """Realtime that is away: every last snapshot has to be noted as unsent."""

    async def send(self, messages: Any) -> None:
        raise SupabaseUnavailable("away")


async def test_thousands_of_entries_and_unsent_runs_are_settled_at_once(
    settings: BridgeSettings, client: redis.Redis
) -> None:
    key = stream_key(settings.outbox.prefix, 0)
    runs = [str(uuid.uuid4()) for _ in range(5_000)]
    pipe = client.pipeline(transaction=False)
    for run in runs:
        pipe.xadd(key, {"e": encode(Patch(run, 1, 0.0, {}, [LogLine("info", "x", 0.0)]))})
    pipe.execute()
    async with Redis.from_url(settings.outbox.redis_url) as connection:
        reader = OutboxReader(connection, settings.outbox.prefix, 5_000)
        while len((batch := await reader.read([0])).entries) < 5_000:
            pass
        batch.dead = [(entry, "x") for entry in batch.entries]
        await reader.acknowledge(batch, {0: runs})
    assert client.xlen(key) == 0
    assert client.xpending(key, "bridge")["pending"] == 0
    assert client.scard(f"{settings.outbox.prefix}:unsent:0") == 5_000
    assert client.xlen(dead_key(settings.outbox.prefix)) == 5_000
