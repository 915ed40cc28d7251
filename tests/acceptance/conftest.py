"""The acceptance app in this process, as app code that dispatches."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from urllib.parse import urlsplit

import pytest
import redis

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leftovers import forget
from tests.acceptance.limits.proxy import Proxy
from tests.conftest import settings_on
from tests.processes import environment


@pytest.fixture(scope="session")
def settings(stack: RunningStack) -> BridgeSettings:
    """One set of settings for all acceptance tests: a Celery app can be made once in a process."""
    return settings_on(stack, f"acceptance-{secrets.token_hex(4)}")


@pytest.fixture(scope="module")
def client(stack: RunningStack) -> Iterator[redis.Redis]:
    """The stack's Redis, which most tests have their broker, outbox and limits in."""
    with redis.Redis.from_url(stack.redis_url) as made:
        yield made


@pytest.fixture(scope="session")
def session_app(settings: BridgeSettings) -> Iterator[ModuleType]:
    """`tests.acceptance.app` on these settings."""
    os.environ.update(environment(settings))
    module = import_module("tests.acceptance.app")
    yield module
    module.app.bridge.close()
    module.app.close()


@pytest.fixture
def app(session_app: ModuleType, settings: BridgeSettings) -> Iterator[ModuleType]:
    """The same for a test that starts and ends workers of its own; what they leave behind is gone then."""
    yield session_app
    forget(settings)


@pytest.fixture
def proxy(settings: BridgeSettings) -> Iterator[Proxy]:
    """What a worker's way to Redis can be cut or frozen at."""
    port = urlsplit(settings.outbox.redis_url).port
    assert port is not None
    made = Proxy(port)
    yield made
    made.close()
