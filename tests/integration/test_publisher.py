"""The bridge process on real Redis and the embedded stack, heard by official clients."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from redis.asyncio import Redis

from bridge.broadcast import Broadcaster, RealtimeBroadcaster
from bridge.errors import BatchRefused, KeyRefused
from bridge.events import LogLine, Patch, encode
from bridge.local.running import RunningStack
from bridge.messages import Message
from bridge.outbox import RedisOutbox, partition_of, stream_key
from bridge.publisher.publisher import Publisher, _end
from bridge.rows import Mirrored, Rows, SupabaseRows
from bridge.settings import BridgeSettings, SupabaseSettings
from bridge.watch import follow
from tests.conftest import User
from tests.database import logs, rows
from tests.processes import Process, environment
from tests.waiting import eventually, wait_until

REPLICA = (
    "import logging, os\n"
    "from bridge.publisher import process\n"
    "from bridge.settings import BridgeSettings\n"
    "logging.basicConfig(level=logging.INFO)\n"
    "process.run(BridgeSettings.model_validate_json(os.environ['TASKCAST_TEST_SETTINGS']))\n"
)


@pytest.fixture
def settings(settings: BridgeSettings) -> BridgeSettings:
    """Impatient: a second for leases, half a second between tries."""
    impatient = settings.publisher.model_copy(
        update={"lease": timedelta(seconds=1), "max_backoff": timedelta(seconds=0.5)}
    )
    return settings.model_copy(update={"publisher": impatient})


class Heard:
    """What an official client heard on a channel."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, dict[str, Any]]] = []
        self.states: list[str] = []

    def of(self, run_id: str, event: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.frames if name == event and payload["run_id"] == run_id]

    def last(self, run_id: str) -> dict[str, Any] | None:
        return max(
            (payload for name, payload in self.frames if name != "log" and payload["run_id"] == run_id),
            key=lambda payload: payload["seq"],
            default=None,
        )


@asynccontextmanager
async def listening(
    stack: RunningStack, topic: str, token: str, welcome: bool = True
) -> AsyncIterator[Heard]:
    client = AsyncRealtimeClient(f"{stack.url}/realtime/v1", stack.anon_key, auto_reconnect=True)
    await client.connect()
    await client.set_auth(token)
    channel = client.channel(topic, {"config": {"private": True}})  # type: ignore[typeddict-item]
    heard = Heard()
    for event in ("state", "progress", "log"):
        channel.on_broadcast(event, lambda frame: heard.frames.append((frame["event"], frame["payload"])))  # type: ignore[arg-type]

    def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
        heard.states.append(state.value)

    await channel.subscribe(on_state)
    assert heard.states == ["SUBSCRIBED" if welcome else "CHANNEL_ERROR"]
    try:
        yield heard
    finally:
        await client.close()


@asynccontextmanager
async def publishing(
    settings: BridgeSettings, rows: Rows | None = None, broadcaster: Broadcaster | None = None
) -> AsyncIterator[Publisher]:
    assert settings.supabase is not None
    async with AsyncExitStack() as stack:
        redis = Redis.from_url(settings.outbox.redis_url)
        stack.push_async_callback(redis.aclose)
        real_rows = SupabaseRows(settings.supabase)
        stack.push_async_callback(real_rows.close)
        real_broadcaster = RealtimeBroadcaster(settings.supabase)
        stack.push_async_callback(real_broadcaster.close)
        publisher = Publisher(settings, redis, rows or real_rows, broadcaster or real_broadcaster)
        task = asyncio.create_task(publisher.run())
        try:
            await eventually(lambda: task.done() or publisher.stats()["partitions"], "partitions are held")
            yield publisher
        finally:
            publisher.stop()
            await task


@pytest.fixture
def outbox(settings: BridgeSettings) -> RedisOutbox:
    return RedisOutbox(settings.outbox)


def topic_of(user: User) -> str:
    return f"import-socials-{user.id}"


def opened(run_id: str, user: User, **fields: Any) -> Patch:
    identity = {"task": "import", "user_id": user.id, "channel": topic_of(user), "root_id": run_id}
    return Patch(run_id, 1, time.time(), {"status": "queued", **identity, **fields}, fresh=True)


def change(run_id: str, *texts: str, **fields: Any) -> Patch:
    return Patch(run_id, 1, time.time(), fields, [LogLine("info", text, time.time()) for text in texts])


def append(outbox: RedisOutbox, root: str, *patches: Patch) -> None:
    outbox.append([(root, patch) for patch in patches])


def new_id() -> str:
    return str(uuid.uuid4())


async def read_rows(stack: RunningStack, run_ids: Sequence[str], user: User) -> list[dict[str, Any]]:
    """The rows of runs as their user reads them, in the order of `run_ids`."""
    headers = {"apikey": stack.anon_key, "authorization": f"Bearer {user.token}"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.get(
            f"{stack.url}/rest/v1/processing_jobs", params={"id": f"in.({','.join(run_ids)})"}
        )
    found = {row["id"]: row for row in answer.json()}
    return [found[run_id] for run_id in run_ids]


def same(snapshot: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    """Whether a broadcast says what the row says."""
    if snapshot is None:
        return False
    renamed = {"run_id": "id", "at": "updated_at"}
    return all(row[renamed.get(name, name)] == value for name, value in snapshot.items())


async def empty(settings: BridgeSettings) -> bool:
    """Whether nothing is left in the outbox, and nothing unsent."""
    async with Redis.from_url(settings.outbox.redis_url) as redis:
        prefix = settings.outbox.prefix
        for partition in range(settings.outbox.partitions):
            if await redis.xlen(stream_key(prefix, partition)):
                return False
            if await redis.exists(f"{prefix}:unsent:{partition}"):
                return False
    return True


async def test_events_reach_the_row_and_the_listener(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()
    async with publishing(settings) as publisher, listening(stack, topic_of(user), user.token) as heard:
        append(outbox, run, opened(run, user))
        await eventually(lambda: heard.of(run, "state"), "queued is heard")
        append(outbox, run, change(run, "first", status="in_progress", progress=30, message="Importing"))
        await eventually(lambda: heard.of(run, "log"), "the log line is heard")
        append(outbox, run, change(run, status="completed", result={"posts": 3}))
        await eventually(lambda: len(heard.of(run, "progress")) == 2, "the end is heard as progress")
        [row] = await read_rows(stack, [run], user)
        assert same(heard.of(run, "progress")[-1], row)
        assert same(heard.of(run, "state")[-1], row)
        assert [each["status"] for each in heard.of(run, "state")] == ["queued", "in_progress", "completed"]
        [line] = heard.of(run, "log")
        assert (line["line"], line["level"], line["message"], line["task"]) == (1, "info", "first", "import")
        await eventually(lambda: publisher.stats()["events"] == 3, "the events are counted")
        assert await empty(settings)


async def test_a_foreign_token_joins_nothing_and_receives_nothing(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, new_user: Callable[[], User]
) -> None:
    alice, mallory, run = new_user(), new_user(), new_id()
    async with (
        publishing(settings),
        listening(stack, topic_of(alice), alice.token) as heard,
        listening(stack, topic_of(alice), mallory.token, welcome=False) as overheard,
        listening(stack, topic_of(alice), stack.anon_key, welcome=False) as overheard_by_anon,
    ):
        append(outbox, run, opened(run, alice), change(run, status="completed"))
        await eventually(lambda: heard.of(run, "progress"), "the owner hears")
        for outsider in (overheard, overheard_by_anon):
            assert "SUBSCRIBED" not in outsider.states
            assert outsider.frames == []


async def test_what_was_written_but_not_acknowledged_is_told_again_and_changes_nothing(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    class Stuck:
        """Realtime that never answers."""

        async def send(self, messages: Sequence[Message]) -> None:
            await asyncio.Event().wait()

    run = new_id()
    append(outbox, run, opened(run, user), change(run, "one", status="in_progress"), change(run, progress=40))
    assert settings.supabase is not None
    redis = Redis.from_url(settings.outbox.redis_url)
    real_rows = SupabaseRows(settings.supabase)
    for _ in range(2):
        crashing = asyncio.create_task(Publisher(settings, redis, real_rows, Stuck()).run())
        before = await eventually(lambda: rows(stack, [run]).get(run), "the row is written")
        await _end([crashing])
    await real_rows.close()
    await redis.aclose()
    async with listening(stack, topic_of(user), user.token) as heard, publishing(settings):
        await eventually(lambda: heard.of(run, "progress"), "the present state is told")
        await eventually(lambda: empty(settings), "the outbox is empty")
    assert rows(stack, [run])[run] == before
    assert [line["message"] for line in logs(stack, run)] == ["one"]
    [row] = await read_rows(stack, [run], user)
    assert same(heard.last(run), row)


async def test_rows_go_on_while_realtime_is_down_and_listeners_catch_up(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    runs = [new_id() for _ in range(20)]
    async with publishing(settings) as publisher:
        await asyncio.to_thread(stack.stop_part, "realtime")
        try:
            for run in runs:
                append(outbox, run, opened(run, user), change(run, "gone", status="in_progress", progress=10))
            for run in runs[:10]:
                append(outbox, run, change(run, status="completed"))

            def written() -> bool:
                found = [row["status"] for row in rows(stack, runs).values()]
                return sorted(found) == ["completed"] * 10 + ["in_progress"] * 10

            await eventually(written, "rows are written without Realtime")
        finally:
            await asyncio.to_thread(stack.start_part, "realtime")
        async with listening(stack, topic_of(user), user.token) as heard:
            await eventually(lambda: publisher.stats()["waiting"] == 0, "all is sent")
            append(outbox, runs[-1], change(runs[-1], status="failed", error_code="x", error_message="X."))
            await eventually(lambda: heard.of(runs[-1], "state"), "events are heard again")
            await eventually(lambda: empty(settings), "nothing is unsent")


async def test_a_crash_during_an_outage_loses_no_last_broadcast(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    runs = [new_id() for _ in range(5)]
    await asyncio.to_thread(stack.stop_part, "realtime")
    try:
        async with publishing(settings):
            for run in runs:
                append(outbox, run, opened(run, user), change(run, status="completed"))
            async with Redis.from_url(settings.outbox.redis_url) as redis:

                async def acknowledged() -> bool:
                    streams = range(settings.outbox.partitions)
                    left = [await redis.xlen(stream_key(settings.outbox.prefix, each)) for each in streams]
                    return sum(left) == 0 and len(rows(stack, runs)) == len(runs)

                await eventually(acknowledged, "the entries are acknowledged all the same")
    finally:
        await asyncio.to_thread(stack.start_part, "realtime")
    async with listening(stack, topic_of(user), user.token) as heard, publishing(settings):
        await eventually(lambda: all(heard.last(run) for run in runs), "the next process tells of all runs")
        await eventually(lambda: empty(settings), "nothing is unsent any more")
        for run, row in zip(runs, await read_rows(stack, runs, user), strict=True):
            assert same(heard.last(run), row)


async def test_entries_wait_while_rest_is_down(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()
    async with publishing(settings) as publisher, listening(stack, topic_of(user), user.token) as heard:
        await asyncio.to_thread(stack.stop_part, "rest")
        try:
            append(outbox, run, opened(run, user), change(run, "kept", status="in_progress", progress=50))
            await eventually(lambda: publisher.outages()["rows"], "the outage is noticed")
            append(outbox, run, change(run, status="completed"))
        finally:
            await asyncio.to_thread(stack.start_part, "rest")
        await eventually(
            lambda: (heard.last(run) or {}).get("status") == "completed", "the end is heard", timeout=60
        )
        await eventually(lambda: empty(settings), "the outbox is empty")
    [row] = await read_rows(stack, [run], user)
    assert same(heard.last(run), row)
    assert [line["message"] for line in logs(stack, run)] == ["kept"]


async def test_poison_goes_to_the_dead_and_blocks_nothing(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User, caplog: Any
) -> None:
    run, hostile = new_id(), new_id()
    prefix = settings.outbox.prefix
    key = stream_key(prefix, partition_of(run, settings.outbox.partitions))
    async with Redis.from_url(settings.outbox.redis_url) as redis:
        append(outbox, run, opened(run, user))
        for raw in (b"\x00\xff", b'{"id":1}', b'["no object"]'):
            await redis.xadd(key, {"e": raw})
        await redis.xadd(key, {"unknown": b"field"})
        await redis.xadd(key, {"e": encode(change(hostile, status="queued", user_id="no uuid: hunter2"))})
        append(outbox, run, change(run, status="in_progress"))
        await redis.xadd(key, {"e": encode(change(run, progress="not a number"))})
        append(outbox, run, change(run, "nul \x00 and \ud800", status="completed", result={"x": "\x00"}))
        async with publishing(settings) as publisher:
            await eventually(lambda: empty(settings), "the outbox is empty")
            assert publisher.stats()["dead"] == 6
        dead = await redis.xrange(f"{prefix}:dead")
    assert len(dead) == 6
    assert {fields[b"partition"] for _, fields in dead} == {key.rpartition(":")[2].encode()}
    assert dead[0][1][b"e"] == b"\x00\xff"
    assert rows(stack, [run])[run]["status"] == "completed"
    assert hostile not in rows(stack, [hostile])
    assert "hunter2" not in caplog.text


async def test_a_hostile_place_in_line_is_set_apart_before_it_reaches_the_rows(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run, prefix = new_id(), settings.outbox.prefix
    refusals: list[BaseException] = []

    class Watched(SupabaseRows):
        async def mirror(self, batch: Sequence[Patch]) -> list[Mirrored]:
            try:
                return await super().mirror(batch)
            except BatchRefused as refusal:
                refusals.append(refusal)
                raise

    assert settings.supabase is not None
    append(outbox, run, opened(run, user), change(run, status="waiting", queue_position=3))
    for hostile in (-1, 0, "2", "x' or 1", 2**31, 10**400, 1.5, True, [1], {"a": 1}):
        append(outbox, run, Patch(run, 1, time.time(), {"queue_position": hostile}, existing=True))
    append(outbox, run, Patch(run, 1, time.time(), {"queue_position": 2}, existing=True))
    watched = Watched(settings.supabase)
    async with publishing(settings, watched) as publisher:
        await eventually(lambda: empty(settings), "the outbox is empty")
        assert publisher.stats()["dead"] == 10
    await watched.close()
    async with Redis.from_url(settings.outbox.redis_url) as redis:
        reasons = {fields[b"reason"] for _, fields in await redis.xrange(f"{prefix}:dead")}
    assert all(b"queue_position" in reason or b"ValueError" in reason for reason in reasons), reasons
    assert refusals == []
    assert rows(stack, [run])[run]["queue_position"] == 2


async def test_a_wait_is_heard_as_a_state_and_every_place_as_progress(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()

    def place(position: int) -> Patch:
        return Patch(run, 1, time.time(), {"queue_position": position}, existing=True)

    async with publishing(settings) as publisher, listening(stack, topic_of(user), user.token) as heard:
        append(outbox, run, opened(run, user))
        append(outbox, run, change(run, status="waiting", wait_reason="5 of 5 run", queue_position=3))
        await eventually(lambda: len(heard.of(run, "state")) == 2, "the wait is heard")
        append(outbox, run, place(2))
        await eventually(lambda: heard.of(run, "progress"), "the place is heard")
        [row] = await read_rows(stack, [run], user)
        assert same(heard.last(run), row)
        assert (row["status"], row["queue_position"]) == ("waiting", 2)
        append(outbox, run, change(run, status="in_progress"), place(1))
        await eventually(lambda: len(heard.of(run, "state")) == 3, "the start is heard")
        append(outbox, run, place(1))
        await eventually(lambda: publisher.stats()["events"] == 6, "late places are read")
        [row] = await read_rows(stack, [run], user)
    assert len(heard.of(run, "progress")) == 1, "a place told late is not broadcast"
    assert same(heard.last(run), row)
    assert (row["status"], row["wait_reason"], row["queue_position"]) == ("in_progress", None, None)


async def test_a_stopped_replica_leaves_no_lease_and_no_key_without_an_end(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()
    async with publishing(settings), Redis.from_url(settings.outbox.redis_url) as redis:
        append(outbox, run, opened(run, user))
        await eventually(lambda: run in rows(stack, [run]), "the row is written")
        outbox_keys = [
            key
            async for key in redis.scan_iter(f"{settings.outbox.prefix}:*")
            if b":limits:" not in key  # what workers keep
        ]
        lasting = [key for key in outbox_keys if await redis.ttl(key) < 0]
        streams = {stream_key(settings.outbox.prefix, each) for each in range(settings.outbox.partitions)}
        assert {key.decode() for key in lasting} == streams
    async with Redis.from_url(settings.outbox.redis_url) as redis:
        left = {key.decode() async for key in redis.scan_iter(f"{settings.outbox.prefix}:*")}
    assert {key for key in left if ":limits:" not in key} == streams


async def test_a_wiped_redis_is_followed_again(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()
    async with publishing(settings), Redis.from_url(settings.outbox.redis_url) as redis:
        for partition in range(settings.outbox.partitions):
            await redis.delete(stream_key(settings.outbox.prefix, partition))
        append(outbox, run, opened(run, user))
        await eventually(lambda: run in rows(stack, [run]), "the row is written")


@pytest.fixture
def replicas(settings: BridgeSettings, tmp_path: Path) -> Iterator[list[Process]]:
    command = [sys.executable, "-c", REPLICA]
    processes = [Process(command, environment(settings), tmp_path / f"replica-{n}.log") for n in range(2)]
    yield processes
    for process in processes:
        process.end()


def test_a_killed_replicas_partitions_are_taken_over(
    stack: RunningStack,
    settings: BridgeSettings,
    outbox: RedisOutbox,
    user: User,
    replicas: list[Process],
) -> None:
    def halves() -> bool:
        return all(process.output().count("replicas: 2") for process in replicas)

    wait_until(halves, "the replicas share the partitions")
    runs = [new_id() for _ in range(40)]
    for run in runs:
        append(outbox, run, opened(run, user))
    replicas[0].kill()
    for run in runs:
        append(outbox, run, change(run, "after", status="completed"))

    def all_done() -> bool:
        found = rows(stack, runs).values()
        return len(found) == len(runs) and all(row["status"] == "completed" for row in found)

    wait_until(all_done, "the survivor writes all runs")
    assert all([line["message"] for line in logs(stack, run)] == ["after"] for run in runs)
    assert replicas[1].end() == 0


async def test_many_runs_over_the_budget_end_with_their_last_state_told(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    poor = settings.broadcast.model_copy(update={"messages_per_second": 200, "listeners": 1})
    runs = [new_id() for _ in range(60)]
    async with (
        publishing(settings.model_copy(update={"broadcast": poor})) as publisher,
        listening(stack, topic_of(user), user.token) as heard,
    ):
        for run in runs:
            append(outbox, run, opened(run, user))
        for percent in range(10, 100, 10):
            for run in runs:
                append(outbox, run, change(run, status="in_progress", progress=percent))
        for run in runs:
            append(outbox, run, change(run, status="completed"))

        def told() -> bool:
            return all((heard.last(run) or {}).get("status") == "completed" for run in runs)

        await eventually(told, "every run's end is told", timeout=20)
        await eventually(lambda: empty(settings), "nothing is unsent")
        assert publisher.stats()["messages"] < 60 * 12
        for run, row in zip(runs, await read_rows(stack, runs, user), strict=True):
            assert same(heard.last(run), row)


async def test_what_the_service_role_called_before_stays_closed_to_others(
    stack: RunningStack, settings: BridgeSettings, user: User
) -> None:
    calls: dict[str, dict[str, Any]] = {
        "mirror_runs": {"batch": []},
        "run_snapshots": {"ids": []},
        "taskcast_schema_version": {},
    }
    tokens = {stack.service_key: 200, stack.anon_key: 401, user.token: 403}
    async with httpx.AsyncClient(headers={"apikey": stack.anon_key}) as client:
        for _ in range(12):  # a pool of connections, each with its own prepared plans
            for name, body in calls.items():
                for token, expected in tokens.items():
                    headers = {"authorization": f"Bearer {token}"}
                    answer = await client.post(f"{stack.url}/rest/v1/rpc/{name}", json=body, headers=headers)
                    assert answer.status_code == expected, f"{name}: {answer.text}"


async def test_a_wrong_key_is_told_at_once(stack: RunningStack, settings: BridgeSettings) -> None:
    for key in (stack.anon_key, "no-key-at-all"):
        wrong = SupabaseSettings(url=stack.url, key=key)  # type: ignore[arg-type]
        with pytest.raises(KeyRefused, match="SUPABASE_SECRET_KEY") as refusal:
            async with publishing(settings.model_copy(update={"supabase": wrong})):
                pass
        assert key not in str(refusal.value)


async def test_both_kinds_of_key_open_rows_and_realtime(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    run = new_id()
    modern = SupabaseSettings(url=stack.url, key=stack.secret_key)  # type: ignore[arg-type]
    async with (
        publishing(settings.model_copy(update={"supabase": modern})),
        listening(stack, topic_of(user), user.token) as heard,
    ):
        append(outbox, run, opened(run, user))
        await eventually(lambda: heard.of(run, "state"), "queued is heard")


# The official client reads the deprecated `code` of a closed connection.
@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")
async def test_watching_follows_the_channel_and_reads_what_it_missed(
    stack: RunningStack, settings: BridgeSettings, outbox: RedisOutbox, user: User
) -> None:
    assert settings.supabase is not None
    early, late = new_id(), new_id()
    seen: list[tuple[str, Any]] = []

    async def watch() -> None:
        assert settings.supabase is not None
        async for event, payload in follow(settings.supabase, topic_of(user)):
            seen.append((event, payload.get("run_id")))

    async with publishing(settings):
        append(outbox, early, opened(early, user))
        await eventually(lambda: rows(stack, [early]), "the early row is written")
        watching = asyncio.create_task(watch())
        await eventually(lambda: ("row", early) in seen, "the missed row is read", timeout=10)
        append(outbox, late, opened(late, user))
        await eventually(lambda: ("state", late) in seen, "the late run is heard", timeout=10)
        await asyncio.to_thread(stack.stop_part, "realtime")
        await asyncio.to_thread(stack.start_part, "realtime")
        await eventually(
            lambda: [event for event, _ in seen].count("joined") > 1, "the watcher is back", timeout=15
        )
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
