"""The outbox on a real Redis: a full one that was emptied, and what cannot be written."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from bridge.appender import Appender
from bridge.events import Patch, decode, run_uuid
from bridge.outbox import RedisOutbox, partition_of, stream_key
from bridge.settings import BridgeSettings
from tests.waiting import wait_until

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
