"""A Redis, workers and a sender for each test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from bridge.settings import BridgeSettings, LimitSettings, OutboxSettings
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.limits.state import Books, Sender

LEASE = timedelta(seconds=4)  # a keeper that is not scheduled for three seconds does not lose it
GRANT = timedelta(seconds=1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The broker, the outbox and the limits in one Redis."""
    started = Server(tmp_path / "redis")
    yield started
    started.end()


@pytest.fixture
def settings(server: Server) -> BridgeSettings:
    return BridgeSettings(
        outbox=OutboxSettings(redis_url=server.url, prefix="test", partitions=2),
        limits=LimitSettings(lease=LEASE, grant=GRANT, timeout=timedelta(seconds=1)),
    )


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    """Workers to be started by the test."""
    made = Fleet(settings, tmp_path)
    yield made
    made.end()


@pytest.fixture
def books(server: Server, settings: BridgeSettings) -> Books:
    return Books(server.client, settings.outbox.prefix)


@pytest.fixture
def sender(settings: BridgeSettings) -> Iterator[Sender]:
    made = Sender(settings)
    yield made
    made.close()
