"""The outbox on a real Redis: what is shed when it fills, what never is, and what cannot be written."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.appender import Appender
from bridge.events import LogLine, Patch, decode, run_uuid
from bridge.local.running import RunningStack
from bridge.outbox import RedisOutbox, partition_of, shed, stream_key
from bridge.settings import BridgeSettings, OutboxSettings
from bridge.testing import MemoryBroadcast
from tests.conftest import User
from tests.database import final_rows, rows
from tests.integration.test_publisher import change, new_id, opened, publishing
from tests.redis_server import leave_no_room, redis_server, url_of
from tests.waiting import eventually, wait_until

ROOT = run_uuid("root")


def progress(number: int) -> list[tuple[str, Patch]]:
    return [(ROOT, Patch(ROOT, 1, 0.0, {"current": number}))]


@pytest.fixture
def entries(settings: BridgeSettings) -> Any:
    client = redis.Redis.from_url(settings.outbox.redis_url)
    key = stream_key(settings.outbox.prefix, partition_of(ROOT, settings.outbox.partitions))

    def read() -> list[Patch]:
        return [decode(name.decode(), fields[b"e"]) for name, fields in client.xrange(key)]

    read.empty = lambda: client.delete(key)  # type: ignore[attr-defined]
    yield read
    client.close()


def test_progress_goes_on_once_a_full_outbox_was_emptied(settings: BridgeSettings, entries: Any) -> None:
    small = settings.outbox.model_copy(update={"max_length": 10})
    outbox = RedisOutbox(small)
    appender = Appender(outbox, small)
    outbox.append(progress(0) * 10)
    wait_until(lambda: outbox.append(progress(1)) or outbox.fullness() >= 1, "it is known to be full")
    entries.empty()

    def reports() -> bool:
        appender.append(progress(2))
        return bool(entries())

    wait_until(reports, "progress alone finds out that there is room again", timeout=10)


def test_one_entry_that_is_no_json_does_not_hold_up_the_others(
    settings: BridgeSettings, entries: Any, caplog: pytest.LogCaptureFixture
) -> None:
    appender = Appender(RedisOutbox(settings.outbox), settings.outbox)
    bad = [(ROOT, Patch(ROOT, 1, 0.0, {"metadata": object()}))]
    appender.append([*progress(1), *bad, *progress(2)])
    assert [patch.fields for patch in entries()] == [{"current": 1}, {"current": 2}]
    assert "no JSON" in caplog.text


def capped(settings: BridgeSettings, entries: int) -> OutboxSettings:
    return settings.outbox.model_copy(update={"max_length": entries})


def evenly_spread(count: int, partitions: int) -> list[str]:
    """New runs that lie in each partition in turn."""
    return [
        next(run for run in iter(new_id, None) if partition_of(run, partitions) == number % partitions)
        for number in range(count)
    ]


def levels_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines on how full the outbox is, as the levels that they tell of."""
    told = [record.getMessage() for record in caplog.records if record.name == "bridge.fullness"]
    return ["room" if "room again" in line else line.split(" is ")[1].split(" %")[0] for line in told]


async def test_with_no_bridge_and_a_tiny_cap_progress_goes_first_and_every_state_is_there_in_the_end(
    stack: RunningStack, settings: BridgeSettings, user: User, caplog: pytest.LogCaptureFixture
) -> None:
    """What is promised beyond the cap: nothing is trimmed, states go on, progress is shed, then log lines."""
    tiny = capped(settings, 40)
    outbox = RedisOutbox(tiny)
    outbox._ASK_EVERY = 0.0  # type: ignore[misc]  # each append is told how full it is by now
    appender = Appender(outbox, tiny)
    client = redis.Redis.from_url(tiny.redis_url)
    runs = evenly_spread(120, tiny.partitions)
    for run in runs:
        appender.append([(run, opened(run, user)), (run, change(run, status="in_progress"))])
        for percent in (20, 40, 60, 80):
            appender.append([(run, change(run, progress=percent))])
        appender.append([(run, change(run, "a line"))])
        appender.append([(run, change(run, step="Topics", result_url="/report"))])
        appender.append([(run, change(run, "the end", status="completed", result={"n": 1}))])
    kept: list[Patch] = []
    for partition in range(tiny.partitions):
        found = client.xrange(stream_key(tiny.prefix, partition))
        kept += [decode(name.decode(), fields[b"e"]) for name, fields in found]
        assert len(found) > 2 * tiny.max_length, "states go on beyond the cap, and nothing is trimmed"
    client.close()
    states = [patch.status for patch in kept if patch.status]
    assert {status: states.count(status) for status in states} == dict.fromkeys(
        ("queued", "in_progress", "completed"), 120
    )
    progress = [patch for patch in kept if patch.fields.keys() == {"progress"}]
    assert 0 < len(progress) < 4 * 40 * tiny.partitions / 9 + 8, "as many as there was room for"
    lines = [line.message for patch in kept for line in patch.logs]
    assert len(progress) / 4 < lines.count("a line") < 120, "log lines go after progress"
    assert sum(patch.fields.get("step") == "Topics" for patch in kept) == 120
    assert appender.stats()["shed"] == 120 * 5 - len(progress) - lines.count("a line")
    assert appender.stats()["fullness"] > 2
    assert [int(level) // 10 for level in levels_told(caplog)][:4] == [7, 9, 10, 20]
    with_cap = settings.model_copy(update={"outbox": tiny})
    async with publishing(with_cap, broadcaster=MemoryBroadcast()):
        await eventually(
            lambda: (
                len(found := rows(stack, runs)) == 120
                and all(row["status"] == "completed" for row in found.values())
            ),
            "every run has ended on its row",
        )
    found = final_rows(stack, runs)
    assert {(row["result"]["n"], row["step"], row["result_url"]) for row in found.values()} == {
        (1, "Topics", "/report")
    }


async def test_the_bridge_tells_how_full_the_outbox_is_before_it_bites(
    settings: BridgeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    hasty = settings.publisher.model_copy(update={"request_timeout": timedelta(seconds=0.2)})
    tiny = settings.model_copy(update={"outbox": capped(settings, 100), "publisher": hasty})
    tree = next(run for run in (run_uuid(str(n)) for n in range(99)) if partition_of(run, 4) == 2)
    outbox = RedisOutbox(tiny.outbox)

    class Away:
        """Rows that cannot be written now."""

        async def check(self) -> None: ...

        async def mirror(self, batch: Any) -> Any:
            from bridge.errors import SupabaseUnavailable

            raise SupabaseUnavailable("away")

    outbox.append([(tree, Patch(tree, 1, 0.0, {"step": "x"}))] * 72)
    async with publishing(tiny, Away(), MemoryBroadcast()) as publisher:  # type: ignore[arg-type]
        await eventually(lambda: publisher.stats()["fullness"] == 0.72, "the fullest partition counts")
        outbox.append([(tree, Patch(tree, 1, 0.0, {"step": "x"}))] * 20)
        await eventually(lambda: publisher.stats()["fullness"] == 0.92, "it fills up")
        await eventually(lambda: levels_told(caplog)[-1:] == ["92"], "and that is told")
        assert "is a bridge running, and Supabase answering?" in caplog.text
        assert set(levels_told(caplog)) == {"72", "92"}
        async with redis.asyncio.Redis.from_url(tiny.outbox.redis_url) as client:
            await client.xtrim(stream_key(tiny.outbox.prefix, 2), 10, approximate=False)
        await eventually(lambda: "room" in levels_told(caplog), "there is room again")


def test_a_full_partition_is_known_as_long_as_the_process_goes_on_appending_to_any(
    settings: BridgeSettings,
) -> None:
    outbox = RedisOutbox(capped(settings, 10))
    outbox._ASK_EVERY = 0.0  # type: ignore[misc]
    full, other = (
        next(run for run in (run_uuid(str(n)) for n in range(99)) if partition_of(run, 4) == wanted)
        for wanted in (0, 1)
    )
    outbox.append([(full, Patch(full, 1, 0.0, {"step": "x"}))] * 12)
    for _ in range(3):
        outbox.append([(other, Patch(other, 1, 0.0, {"step": "x"}))])
        assert outbox.fullness() == 1.2
    outbox.append([])
    assert outbox.fullness() == 1.2


@pytest.mark.parametrize(
    ("fields", "lines", "left"),
    [
        ({"progress": 5, "current": 1, "total": 20, "message": "x"}, [], (True, False, False)),
        ({"queue_position": 3, "wait_reason": "limit"}, [], (True, False, False)),
        ({"progress": 5}, ["a line"], (True, True, False)),
        ({"status": "in_progress"}, ["a line"], (True, True, True)),
        ({"status": "completed"}, [], (True, True, True)),
        ({"step": "Topics"}, [], (True, True, True)),
        ({"result_url": "/report"}, [], (True, True, True)),
        ({"progress": 5, "result_url": "/report"}, [], (True, True, True)),
        ({"status": "waiting", "queue_position": 3}, [], (True, True, True)),
    ],
)
def test_only_what_is_told_anew_is_shed(
    fields: dict[str, Any], lines: list[str], left: tuple[bool, ...]
) -> None:
    patch = Patch(ROOT, 1, 0.0, fields, [LogLine("info", line, 0.0) for line in lines])
    found = [shed([(ROOT, patch)], fullness) for fullness in (0.99, 1.0, 2.0)]
    assert tuple(bool(entries) for entries in found) == left
    assert [len(kept.logs) for entries in found[:2] for _, kept in entries] == [len(lines)] * sum(left[:2])
    assert all(not kept.logs for _, kept in found[2])
    assert len(patch.logs) == len(lines), "what is shed for good is a copy: an append may be tried again"


def test_a_redis_without_memory_costs_no_final_state(tmp_path: Path, settings: BridgeSettings) -> None:
    """Below the cap Redis itself may be full: then each process keeps the last states of its runs."""
    with redis_server(tmp_path / "redis") as client:
        own = settings.outbox.model_copy(update={"redis_url": url_of(client), "buffered_runs": 100})
        appender = Appender(RedisOutbox(own), own)
        leave_no_room(client)
        runs = [run_uuid(str(number)) for number in range(100)]
        for status in ("queued", "in_progress", "completed"):
            for run in runs:
                appender.append([(run, Patch(run, 1, 0.0, {"status": status, "progress": 1}))])
        assert appender.stats()["away"]
        assert 100 <= appender.stats()["waiting"] <= 200
        client.config_set("maxmemory", 0)

        def all_there() -> bool:
            last: dict[str, str | None] = {}
            for partition in range(own.partitions):
                for name, fields in client.xrange(stream_key(own.prefix, partition)):
                    patch = decode(name.decode(), fields[b"e"])
                    last[patch.run_id] = patch.status
            return last == dict.fromkeys(runs, "completed")

        wait_until(all_there, "every run's end is in the outbox")
        appender.close()
