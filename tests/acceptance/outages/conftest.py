"""A worker and a bridge on an origin that can be taken away, and a listener that sees what is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from bridge.events import FINAL_STATUSES
from bridge.local.running import RunningStack
from bridge.outbox import stream_key
from bridge.settings import BridgeSettings, SupabaseSettings
from tests.acceptance.outages import LINES
from tests.acceptance.outages.origin import Origin
from tests.acceptance.test_seed_patterns import PRIVATE, client_of, subscribed
from tests.conftest import User
from tests.database import logs
from tests.processes import Process, bridge, worker

APP = "tests.acceptance.outages.app"


class Listener:
    """What an official client heard, in order."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, dict[str, Any]]] = []

    def hear(self, frame: dict[str, Any]) -> None:
        self.frames.append((frame["event"], frame["payload"]))

    def of(self, run: str, *events: str) -> list[dict[str, Any]]:
        events = events or ("state", "progress")
        return [payload for event, payload in self.frames if event in events and payload["run_id"] == run]

    def told_the_end(self, runs: list[str]) -> bool:
        ended = {
            payload["run_id"] for _, payload in self.frames if payload["status"] in FINAL_STATUSES
        }  # of any event
        return ended.issuperset(runs)

    def never_fell_back(self, run: str) -> bool:
        """Whether no snapshot was followed by an older one, nor told twice but as state and as progress."""
        numbers = [payload["seq"] for payload in self.of(run)]
        return numbers == sorted(numbers)

    def repeats(self, run: str) -> int:
        told = Counter(
            (event, each["seq"]) for event in ("state", "progress") for each in self.of(run, event)
        )
        return max(told.values(), default=0) - 1


@asynccontextmanager
async def listening(stack: RunningStack, user: User) -> AsyncIterator[Listener]:
    listener = Listener()
    async with client_of(stack, user) as client:
        channel = client.channel(f"import-socials-{user.id}", PRIVATE)
        for event in ("state", "progress", "log"):
            channel.on_broadcast(event, listener.hear)
        assert await subscribed(channel) == "SUBSCRIBED"
        yield listener


@pytest.fixture(scope="session")
def origin(stack: RunningStack) -> Iterator[Origin]:
    made = Origin(stack.url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def through(stack: RunningStack, settings: BridgeSettings, origin: Origin) -> BridgeSettings:
    """The settings of processes that know the project by this origin, and soon try again."""
    publisher = settings.publisher.model_copy(
        update={"request_timeout": timedelta(seconds=1), "max_backoff": timedelta(seconds=0.5), "batch": 20}
    )
    outbox = settings.outbox.model_copy(
        update={
            "progress_interval": timedelta(milliseconds=5),
            "flush_interval": timedelta(milliseconds=5),
        }
    )
    project = SupabaseSettings(url=origin.url, key=stack.service_key)  # type: ignore[arg-type]
    return settings.model_copy(update={"publisher": publisher, "supabase": project, "outbox": outbox})


@pytest.fixture(scope="session")
def tasks(session_app: ModuleType) -> Any:
    return import_module(APP)


@pytest.fixture(scope="module")
def working(session_app: ModuleType, through: BridgeSettings, tmp_path_factory: Any) -> Iterator[Process]:
    """One worker for a module's tests."""
    logs: Path = tmp_path_factory.mktemp("worker")
    with worker(through, logs, app=APP, concurrency=4, pool="threads") as process:
        yield process


@pytest.fixture(scope="module")
def bridging(working: Process, through: BridgeSettings, tmp_path_factory: Any) -> Iterator[Process]:
    """One bridge for a module's tests, in its steady state."""
    logs: Path = tmp_path_factory.mktemp("bridge")
    with bridge(through, logs) as process:
        process.says("reading partitions")
        yield process


class Door:
    """What runs of `talking` wait for."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.open = path.touch


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Open at the test's end: the worker is the next one's, too."""
    made = Door(tmp_path / "door")
    yield made
    made.open()


@pytest.fixture
def left(settings: BridgeSettings) -> Iterator[Callable[[], int]]:
    """How many entries lie in the outbox."""
    outbox = settings.outbox
    with redis.Redis.from_url(outbox.redis_url) as client:
        yield lambda: sum(
            int(client.xlen(stream_key(outbox.prefix, each))) for each in range(outbox.partitions)
        )


def complete(stack: RunningStack, row: dict[str, Any]) -> bool:
    """Whether a row of `chatty` says all there is to say, its log lines in order and without gaps."""
    lines = logs(stack, str(row["id"]))
    assert (row["status"], row["progress"], row["error_code"]) == ("completed", 100, None)
    assert [line["seq"] for line in lines] == list(range(1, LINES + 1))
    assert [line["message"] for line in lines] == [f"line {number}" for number in range(1, LINES + 1)]
    return True


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)
