"""The acceptance app in this process, as app code that dispatches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from bridge.settings import BridgeSettings
from tests.processes import environment


@pytest.fixture
def app(settings: BridgeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`tests.acceptance.app` on this test's settings."""
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    sys.modules.pop("tests.acceptance.app", None)
    module = import_module("tests.acceptance.app")
    yield module
    module.app.bridge.close()
    module.app.close()
    sys.modules.pop("tests.acceptance.app", None)
