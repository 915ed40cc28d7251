"""A Redis of the test's own, which has all of a deployment: killed, frozen and started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import uuid

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.restarts.conftest import Keys, Post, with_short_leases
from tests.conftest import settings_on
from tests.processes import bridge


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """All of the deployment's Redis; how durable it is may be a parameter."""
    started = Server(tmp_path / "redis", durable=getattr(request, "param", "everysec"))
    yield started
    started.end()


@pytest.fixture
def settings(stack: RunningStack, server: Server) -> BridgeSettings:
    made = with_short_leases(settings_on(stack, f"restart-{uuid()[:8]}"))
    outbox = made.outbox.model_copy(update={"redis_url": server.url})
    return made.model_copy(update={"outbox": outbox})


@pytest.fixture
def client(server: Server) -> redis.Redis:
    return server.client


@pytest.fixture
def books(client: redis.Redis, settings: BridgeSettings) -> Keys:
    return Keys(client, settings.outbox.prefix)


@pytest.fixture
def post(settings: BridgeSettings) -> Iterator[Post]:
    made = Post(settings)
    yield made
    made.close()


@contextmanager
def bridged(settings: BridgeSettings, folder: Path, app: str) -> Iterator[Fleet]:
    """Workers of an app, to be started by the test, and a bridge."""
    made = Fleet(settings, folder, app=app)
    with bridge(settings, folder, app):
        yield made
        made.end()
