"""A Redis of the tests' own, a bridge on it whose reaper looks often, and the rows that it writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg.rows import dict_row

from bridge import Bridge
from bridge.local.running import RunningStack
from bridge.outbox import stream_key
from bridge.settings import BridgeSettings
from tests.acceptance.leftovers import nothing_runs
from tests.acceptance.limits.fleet import Fleet, Server
from tests.conftest import settings_on
from tests.processes import Process, bridge
from tests.waiting import PATIENCE, wait_until

APP = "tests.acceptance.reaper.app"
LEASE = timedelta(seconds=1)
STEADY = timedelta(seconds=4)
"""Where runs execute: a keeper that is not scheduled for three seconds does not lose their leases."""

FOUND = 90.0
"""Seconds to wait for what is found within six leases: quiet for two, found twice two apart, each look up to
a lease late; and what a busy machine adds."""


class World:
    """One deployment: what is sent, and what the rows say of it."""

    def __init__(self, settings: BridgeSettings, server: Server, connection: psycopg.Connection[Any]) -> None:
        self.settings, self.server, self._connection = settings, server, connection
        url = settings.outbox.redis_url
        self.app = Celery("sender", broker=url, backend=url, set_as_current=False)
        self.app.conf.task_default_queue = "default"
        self.bridge = Bridge(self.app, settings)
        nothing_runs(settings)

    def send(self, task: str, *args: Any, **options: Any) -> str:
        return str(self.app.send_task(f"{APP}.{task}", args, **options).id)

    def row(self, run: str) -> dict[str, Any]:
        """The row, empty while there is none."""
        found = self._connection.execute("select * from processing_jobs where id = %s", (run,)).fetchone()
        return found or {}

    def becomes(self, run: str, status: str, within: float = PATIENCE) -> dict[str, Any]:
        wait_until(lambda: self.row(run).get("status") == status, f"the row of {run} is {status}", within)
        return self.row(run)

    def says(self, run: str, status: str, **columns: Any) -> None:
        """Make the row tell what is not so, as if the news since had been lost."""
        sets = ", ".join(f"{name} = %({name})s" for name in columns)
        self._connection.execute(
            f"update processing_jobs set status = %(status)s, finished_at = null"
            f"{', ' + sets if sets else ''} where id = %(id)s",
            {"status": status, "id": run, **columns},
        )

    def is_heard(self) -> bool:
        """Whether the bridge has written all that was told."""
        outbox = self.settings.outbox
        streams = [stream_key(outbox.prefix, partition) for partition in range(outbox.partitions)]
        return not any(map(self.server.client.xlen, streams))

    def execute(self, query: str, *values: Any) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "redis")
    yield made
    made.end()


@pytest.fixture
def lease() -> timedelta:
    return LEASE


@pytest.fixture
def settings(stack: RunningStack, server: Server, lease: timedelta) -> BridgeSettings:
    made = settings_on(stack, f"reaper-{secrets.token_hex(4)}")
    outbox = made.outbox.model_copy(update={"redis_url": server.url})
    limits = made.limits.model_copy(update={"lease": lease})
    return made.model_copy(update={"outbox": outbox, "limits": limits})


@pytest.fixture
def world(stack: RunningStack, settings: BridgeSettings, server: Server) -> Iterator[World]:
    with psycopg.connect(stack.database_url, row_factory=dict_row, autocommit=True) as connection:
        made = World(settings, server, connection)
        yield made
        made.bridge.close()
        made.app.close()


@pytest.fixture
def reaping(world: World, tmp_path: Path) -> Iterator[Process]:
    """A bridge process, whose reaper goes by the lease."""
    with bridge(world.settings, tmp_path, APP) as process:
        yield process


@pytest.fixture
def fleet(world: World, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(world.settings, tmp_path, app=APP)
    yield made
    made.end()
