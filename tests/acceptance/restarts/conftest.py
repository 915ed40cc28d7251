"""A fleet on the embedded stack that is restarted in parts, bridges, and what rows and bodies say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
import redis

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import Leases
from tests.acceptance.leftovers import forget, own_settings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits.state import Sender
from tests.processes import Process, bridge

APP = "tests.acceptance.restarts.app"
LEASE = timedelta(seconds=4)  # a process that is not scheduled for three seconds does not lose it
GRANT = timedelta(seconds=1)
PARTITIONS = 6  # two for each of three bridges, three for each of two


class Keys(Leases):
    """The limits' keys, as they are."""

    def keys(self) -> list[str]:
        """Their names without the prefix, but of runs that have ended, which Redis forgets by itself."""
        names = [raw.decode().removeprefix(self._root) for raw in self._redis.scan_iter(f"{self._root}*")]
        return sorted(name for name in names if not name.startswith("run:"))


class Post(Sender):
    """Sends runs of the restarts' app."""

    tasks = APP


def with_short_leases(settings: BridgeSettings) -> BridgeSettings:
    limits = settings.limits.model_copy(update={"lease": LEASE, "grant": GRANT})
    publisher = settings.publisher.model_copy(update={"lease": LEASE})
    outbox = settings.outbox.model_copy(update={"partitions": PARTITIONS})
    return settings.model_copy(update={"limits": limits, "publisher": publisher, "outbox": outbox})


@pytest.fixture(scope="module")
def settings(stack: RunningStack) -> Iterator[BridgeSettings]:
    """On the stack, with short leases."""
    with own_settings(stack, "restarts") as made:
        yield with_short_leases(made)


@pytest.fixture(scope="module")
def books(client: redis.Redis, settings: BridgeSettings) -> Keys:
    return Keys(client, settings.outbox.prefix)


@pytest.fixture(scope="module")
def post(settings: BridgeSettings) -> Iterator[Post]:
    made = Post(settings)
    yield made
    made.close()


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    """Workers to be started by the test; what they leave behind is gone with them."""
    made = Fleet(settings, tmp_path, app=APP)
    yield made
    made.end()
    forget(settings)


@pytest.fixture
def new_bridge(settings: BridgeSettings, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts bridges, which end with the test."""
    with ExitStack() as started:
        names = (f"bridge{number}" for number in count(1))
        yield lambda: started.enter_context(bridge(settings, tmp_path, APP, next(names)))
