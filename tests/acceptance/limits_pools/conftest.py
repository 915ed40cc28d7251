"""One fleet for all tests of this folder: a worker of each pool and a bridge."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits_pools.history import History
from tests.acceptance.limits_pools.rabbitmq import Node
from tests.conftest import settings_on
from tests.processes import Process, bridge, environment, worker

APP = "tests.acceptance.limits_pools.app"
HISTORY = "TASKCAST_TEST_HISTORY"
TRANSPORT = "TASKCAST_TEST_TRANSPORT"
POOLS = {"prefork": 3, "threads": 3, "gevent": 8, "solo": 1}


@pytest.fixture(scope="session")
def settings(stack: RunningStack) -> BridgeSettings:
    settings = settings_on(stack, f"limits-{secrets.token_hex(4)}")
    limits = settings.limits.model_copy(update={"positions_per_second": 20})
    return settings.model_copy(update={"limits": limits})


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    path = tmp_path_factory.mktemp("history") / "log"
    os.environ[HISTORY] = str(path)  # for every worker of this folder
    return History(path)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def fleet(
    app: ModuleType, settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    logs = tmp_path_factory.mktemp("fleet")
    prefix = settings.outbox.prefix
    contexts: dict[str, AbstractContextManager[Process]] = {
        pool: worker(
            settings, logs, APP, pool, slots, name=pool,
            arguments=("-Q", ",".join(f"{prefix}-{queue}" for queue in queues_of(pool)), "--without-gossip"),
        )
        for pool, slots in POOLS.items()
    }  # fmt: skip
    with bridge(settings, logs, APP), Together(contexts) as workers:
        yield Fleet(app, workers)


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


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node.running(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Files that bodies wait for; a test touches them, and what it left shut is open at its end."""
    doors: list[Path] = []

    def make(name: str = "door") -> Path:
        doors.append(tmp_path / name)
        return doors[-1]

    yield make
    for each in doors:
        each.touch()
