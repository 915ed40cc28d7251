"""Workers on the embedded stack, a bridge, and what rows went through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis

from bridge.events import FINAL_STATUSES
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leftovers import forget, own_settings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits.ledger import now
from tests.acceptance.limits.proxy import Proxy
from tests.acceptance.limits.state import Books, Sender
from tests.lines import whole_lines
from tests.processes import bridge
from tests.waiting import wait_until

APP = "tests.acceptance.leases.app"
LEASE = timedelta(seconds=4)  # a keeper that is not scheduled for three seconds does not lose it
BEATS = 3.0
"""On top of a lease: others look once a second who is silent, who is dead, and what he had taken."""


class Turn(NamedTuple):
    """What a row showed from a moment on."""

    at: float
    status: str
    attempt: int


class Rows:
    """The rows of a deployment, watched as they change."""

    def __init__(self, stack: RunningStack, deployment: str) -> None:
        self._url, self._deployment, self._over = stack.database_url, deployment, threading.Event()
        self.turns: dict[str, list[Turn]] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._watch)

    @contextmanager
    def watched(self) -> Iterator[Rows]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def status(self, run: str) -> str | None:
        return self.last.get(run, {}).get("status")

    def final(self, run: str) -> dict[str, Any]:
        """The row once it is final."""
        wait_until(lambda: self.status(run) in FINAL_STATUSES, f"the row of {run} is final")
        return self.last[run]

    def _watch(self) -> None:
        with psycopg.connect(self._url, row_factory=psycopg.rows.dict_row, autocommit=True) as connection:
            while not self._over.wait(0.05):
                query = "select * from processing_jobs where deployment = %s"
                for row in connection.execute(query, (self._deployment,)):
                    self._note(str(row["id"]), row)

    def _note(self, run: str, row: dict[str, Any]) -> None:
        self.last[run] = row
        turns = self.turns.setdefault(run, [])
        if not turns or turns[-1][1:] != (row["status"], row["attempt"]):
            turns.append(Turn(now(), row["status"], row["attempt"]))


class Leases(Books):
    """The leases as Redis has them."""

    def leftovers(self) -> list[str]:
        """What would stay for ever although nothing runs."""
        keys = [raw.decode() for raw in self._redis.scan_iter(f"{self._root}*")]
        runs = [key for key in keys if ":run:" in key and self._redis.ttl(key) < 0]  # type: ignore[operator]
        return runs + [key for key in keys if ":held:" in key]

    def state_of(self, run: str) -> dict[str, str]:
        """What is known of a run's first attempt."""
        known: dict[bytes, bytes] = self._redis.hgetall(f"{self._root}run:{run}:1:0")  # type: ignore[assignment]
        return {name.decode(): value.decode() for name, value in known.items()}


class Post(Sender):
    """Sends runs of the leases' app."""

    tasks = APP


@pytest.fixture(scope="module")
def settings(stack: RunningStack) -> Iterator[BridgeSettings]:
    """On the stack, with short leases."""
    with own_settings(stack, "leases") as made:
        yield made.model_copy(update={"limits": made.limits.model_copy(update={"lease": LEASE})})


@pytest.fixture(scope="module")
def rows(
    stack: RunningStack, settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rows]:
    """The rows, which a bridge writes."""
    watching = Rows(stack, settings.deployment).watched()
    with bridge(settings, tmp_path_factory.mktemp("bridge"), APP), watching as watched:
        yield watched


@pytest.fixture(scope="module")
def books(client: redis.Redis, settings: BridgeSettings) -> Leases:
    return Leases(client, settings.outbox.prefix)


@pytest.fixture(scope="module")
def sender(settings: BridgeSettings) -> Iterator[Post]:
    made = Post(settings)
    yield made
    made.close()


@pytest.fixture
def new_fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes a fleet, whose workers the test starts; what it leaves behind is gone with it."""
    made: list[Fleet] = []

    def make(settings: BridgeSettings = settings) -> Fleet:
        made.append(Fleet(settings, tmp_path, app=APP))
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()
    forget(settings)


@pytest.fixture
def fleet(new_fleet: Callable[..., Fleet]) -> Fleet:
    """Workers to be started by the test."""
    return new_fleet()


@pytest.fixture
def distant(new_fleet: Callable[..., Fleet], settings: BridgeSettings, proxy: Proxy) -> Fleet:
    """Workers that reach Redis through the proxy alone."""
    outbox = settings.outbox.model_copy(update={"redis_url": proxy.url})
    return new_fleet(settings.model_copy(update={"outbox": outbox}))


def attempts(fleet: Fleet, run: str) -> list[int]:
    """The numbers that the bodies of a run have seen, in their order."""
    noted = Path(fleet.ledger.path).with_name(f"attempts-{run}")
    return list(map(int, whole_lines(noted)))


def executing(fleet: Fleet, *runs: str) -> bool:
    return set(runs) <= fleet.ledger.executing()
