"""The acceptance app in this process, as app code that dispatches."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import settings_on
from tests.processes import environment


@pytest.fixture(scope="session")
def settings(stack: RunningStack) -> BridgeSettings:
    """One set of settings for all acceptance tests: a Celery app can be made once in a process."""
    return settings_on(stack, f"acceptance-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def app(settings: BridgeSettings) -> Iterator[ModuleType]:
    """`tests.acceptance.app` on these settings."""
    os.environ.update(environment(settings))
    module = import_module("tests.acceptance.app")
    yield module
    module.app.bridge.close()
    module.app.close()
