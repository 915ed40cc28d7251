"""One fleet for all tests of this folder, as long as they pass: a worker of each pool and a bridge."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leftovers import forget
from tests.acceptance.limits.state import Books
from tests.acceptance.limits_pools.history import History
from tests.acceptance.limits_pools.rabbitmq import Node
from tests.conftest import settings_on
from tests.processes import Process, bridge, environment, worker
from tests.waiting import wait_until

APP = "tests.acceptance.limits_pools.app"
HISTORY = "TASKCAST_TEST_HISTORY"
TRANSPORT = "TASKCAST_TEST_TRANSPORT"
POOLS = {"prefork": 3, "threads": 3, "gevent": 8, "solo": 1}
GRANT = timedelta(minutes=2)
"""So long that no test sees a slot free again only because its run did not come in time."""


@pytest.fixture(scope="package")
def settings(stack: RunningStack) -> BridgeSettings:
    settings = settings_on(stack, f"limits-{secrets.token_hex(4)}")
    limits = settings.limits.model_copy(update={"positions_per_second": 20, "grant": GRANT})
    return settings.model_copy(update={"limits": limits})


@pytest.fixture(scope="package")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    path = tmp_path_factory.mktemp("history") / "log"
    os.environ[HISTORY] = str(path)  # for every worker of this folder
    return History(path)


@pytest.fixture(scope="package")
def app(settings: BridgeSettings, history: History) -> Iterator[ModuleType]:
    os.environ.update(environment(settings))
    module = import_module(APP)
    yield module
    module.app.bridge.close()
    module.app.close()


@dataclass(frozen=True)
class Fleet:
    """A worker of each pool; each takes a queue called like its pool and one called "all".

    The default queue, "common", is for all but the solo worker, which a body keeps from everything else.
    """

    app: ModuleType
    workers: dict[str, Process]

    def queue(self, pool: str) -> str:
        return f"{self.app.settings.outbox.prefix}-{pool}"


def queues_of(pool: str) -> list[str]:
    return [pool, "all"] if pool == "solo" else [pool, "all", "common"]


class Crew:
    """The fleet of all tests, and another one after a test that has failed."""

    def __init__(self, app: ModuleType, settings: BridgeSettings, folders: pytest.TempPathFactory) -> None:
        self._app, self._settings, self._folders = app, settings, folders
        self._running = ExitStack()
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet:
        if self._fleet is None:
            logs, prefix = self._folders.mktemp("fleet"), self._settings.outbox.prefix
            contexts: dict[str, AbstractContextManager[Process]] = {
                pool: worker(
                    self._settings, logs, APP, pool, slots, name=pool, arguments=(
                        "-Q", ",".join(f"{prefix}-{queue}" for queue in queues_of(pool)), "--without-gossip",
                    ),
                )
                for pool, slots in POOLS.items()
            }  # fmt: skip
            self._fleet = Fleet(self._app, self._running.enter_context(Together(contexts)))
        return self._fleet

    def kill(self) -> None:
        """End it as it is, and forget what it leaves behind."""
        if self._fleet is not None:
            for process in self._fleet.workers.values():
                process.kill()
        self.end()
        forget(self._settings)

    def end(self) -> None:
        self._fleet = None
        self._running.close()


@pytest.fixture(scope="package")
def crew(
    app: ModuleType, settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    made = Crew(app, settings, tmp_path_factory)
    with bridge(settings, tmp_path_factory.mktemp("bridge"), APP):
        yield made
        made.end()


@pytest.fixture
def fleet(crew: Crew, stack: RunningStack, settings: BridgeSettings, door: Doors) -> Iterator[Fleet]:
    """Afterwards no slot is taken and nobody waits, or the next test has another fleet."""
    yield crew.fleet()
    door.open()
    with redis.Redis.from_url(stack.redis_url) as client:
        try:
            wait_until(Books(client, settings.outbox.prefix).is_idle, "nothing is held and nobody waits")
        except AssertionError:
            crew.kill()
            raise


class Together(AbstractContextManager[dict[str, Process]]):
    """Processes that are started, and ended, all at once: a worker takes seconds, mostly for its imports."""

    def __init__(self, contexts: dict[str, AbstractContextManager[Process]]) -> None:
        self._contexts = contexts

    def __enter__(self) -> dict[str, Process]:
        with ThreadPoolExecutor(len(self._contexts)) as threads:
            entered = threads.map(lambda context: context.__enter__(), self._contexts.values())
            return dict(zip(self._contexts, entered, strict=True))

    def __exit__(self, *_: Any) -> None:
        with ThreadPoolExecutor(len(self._contexts)) as threads, ExitStack() as ending:
            for left in [threads.submit(each.__exit__, None, None, None) for each in self._contexts.values()]:
                ending.callback(left.result)


@pytest.fixture(scope="package")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node.running(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


class Doors:
    """Files that bodies wait for; a test touches them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Path] = []

    def __call__(self, name: str = "door") -> Path:
        self._made.append(self._folder / name)
        return self._made[-1]

    def open(self) -> None:
        for each in self._made:
            each.touch()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Doors]:
    """What a test has left shut is open at its end."""
    doors = Doors(tmp_path)
    yield doors
    doors.open()
