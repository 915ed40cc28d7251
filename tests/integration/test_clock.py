"""A machine whose clock is off tells and reads times by the clock of Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from bridge.clock import TOLERANCE, SharedClock, counted_from_now
from bridge.events import LogLine, Patch, decode
from bridge.outbox import ENTRY_FIELD, RedisOutbox, stream_key
from bridge.settings import BridgeSettings, OutboxSettings
from tests.acceptance.limits.proxy import Proxy

HOUR = 3600.0


def off_by(seconds: float) -> Callable[[], float]:
    return lambda: time.time() + seconds


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_clock_that_is_off_is_known_to_be_and_by_how_much(settings: BridgeSettings, seconds: float) -> None:
    clock = SharedClock(settings.outbox, off_by(seconds))
    assert clock.ahead() == pytest.approx(seconds, abs=1)


def test_a_clock_that_keeps_time_is_left_as_it_is(settings: BridgeSettings) -> None:
    assert SharedClock(settings.outbox, off_by(TOLERANCE / 2)).ahead() == 0.0


def test_a_step_of_the_clock_is_noticed_at_once(settings: BridgeSettings) -> None:
    steps = [0.0]
    clock = SharedClock(settings.outbox, lambda: time.time() + steps[-1])
    assert clock.ahead() == 0.0
    steps.append(-HOUR)
    assert clock.ahead() == pytest.approx(-HOUR, abs=1)


def test_without_redis_the_own_clock_is_good_enough() -> None:
    nowhere = OutboxSettings(redis_url="redis://127.0.0.1:1/0", timeout=timedelta(seconds=0.2))
    assert SharedClock(nowhere, off_by(HOUR)).ahead() == 0.0


def test_threads_that_ask_at_the_same_time_are_all_told(settings: BridgeSettings) -> None:
    port = urlsplit(settings.outbox.redis_url).port
    assert port is not None
    proxy, together = Proxy(port), Barrier(4)
    proxy.delay = 0.1
    clock = SharedClock(settings.outbox.model_copy(update={"redis_url": proxy.url}), off_by(HOUR))

    def ask() -> float:
        together.wait()
        return clock.ahead()

    with closing(proxy), ThreadPoolExecutor(together.parties) as pool:
        told = [pool.submit(ask) for _ in range(together.parties)]
        assert [each.result() for each in told] == pytest.approx([HOUR] * len(told), abs=1)


def test_times_of_a_message_that_count_from_now_are_corrected_and_times_of_day_are_not(
    settings: BridgeSettings,
) -> None:
    told = datetime.now(UTC) + timedelta(seconds=HOUR + 10)
    headers: dict[str, Any] = {"eta": told.isoformat(), "expires": told.isoformat(), "id": "1"}
    SharedClock(settings.outbox, off_by(HOUR)).correct(headers, {"eta"})
    assert datetime.fromisoformat(headers["eta"]).timestamp() == pytest.approx(time.time() + 10, abs=1)
    assert headers["expires"] == told.isoformat()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"countdown": 10}, {"eta"}),
        ({"countdown": 10, "expires": 20.0}, {"eta", "expires"}),
        ({"expires": datetime.now(UTC)}, set()),
        ({"eta": datetime.now(UTC), "countdown": None}, set()),
        ({}, set()),
    ],
)
def test_seconds_count_from_now(options: dict[str, Any], expected: set[str]) -> None:
    assert counted_from_now(options) == expected


def test_what_happened_is_told_by_the_shared_clock(settings: BridgeSettings) -> None:
    outbox = RedisOutbox(settings.outbox, SharedClock(settings.outbox, off_by(HOUR)))
    at, run = time.time() + HOUR, str(uuid4())
    fields = {"started_at": datetime.fromtimestamp(at, UTC).isoformat()}
    outbox.append([("root", Patch(run, 1, at, fields, [LogLine("info", "said", at)]))])
    found: list[Any] = []
    for partition in range(settings.outbox.partitions):
        found += outbox._redis.xrange(stream_key(settings.outbox.prefix, partition))
    [(entry, fields)] = found
    patch = decode(entry.decode(), fields[ENTRY_FIELD.encode()])
    assert patch.at == pytest.approx(time.time(), abs=1)
    assert patch.logs[0].at == pytest.approx(time.time(), abs=1)
    started_at = datetime.fromisoformat(patch.fields["started_at"])
    assert started_at.timestamp() == pytest.approx(time.time(), abs=1)


def test_a_clock_that_was_not_told_is_asked_again_soon(settings: BridgeSettings) -> None:
    passed = [0.0]
    clock = SharedClock(
        settings.outbox.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}),
        off_by(HOUR),
        lambda: passed[-1],
    )
    assert clock.ahead() == 0.0
    del clock._redis
    clock._settings = settings.outbox
    passed.append(1.1)
    assert clock.ahead() == pytest.approx(HOUR, abs=1)
