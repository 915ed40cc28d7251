"""Leases where RabbitMQ has the messages, which delivers again as soon as a connection is gone."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import Leases
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits_pools.conftest import APP, TRANSPORT
from tests.acceptance.limits_pools.history import History
from tests.acceptance.limits_pools.rabbitmq import RABBIT, Node
from tests.conftest import settings_on
from tests.database import final_rows, rows
from tests.processes import BROKER, bridge
from tests.waiting import PATIENCE, wait_until

pytestmark = RABBIT

LEASE = timedelta(seconds=4)  # a keeper that is not scheduled for three seconds does not lose it
GRANT = timedelta(seconds=1)


@dataclass(frozen=True)
class Site:
    """A RabbitMQ, a bridge, a plain app that sends by name, and what bodies, rows and leases say."""

    node: Node
    stack: RunningStack
    settings: BridgeSettings
    client: Celery
    history: History
    leases: Leases

    def send(self, task: str, *args: Any, **options: Any) -> str:
        queue = f"{self.settings.outbox.prefix}-common"
        return str(self.client.send_task(f"{APP}.{task}", args, queue=queue, **options).id)

    def status(self, run: str) -> str | None:
        row = rows(self.stack, [run]).get(run)
        return str(row["status"]) if row else None

    def are_told(self, statuses: dict[str, str], within: float = PATIENCE) -> None:
        """Wait until the rows show these."""
        wait_until(
            lambda: {run: self.status(run) for run in statuses} == statuses, f"rows show {statuses}", within
        )

    def all_is_true(self, executions: dict[str, int]) -> dict[str, dict[str, Any]]:
        """Each run has completed and was executed so often; no lease is left."""
        found = final_rows(self.stack, list(executions))
        assert {row["status"] for row in found.values()} == {"completed"}
        assert {run: self.history.starts([run]).count(run) for run in executions} == executions
        wait_until(lambda: not self.leases.leftovers() and self.leases.is_idle(), "nothing is held")
        return found


@pytest.fixture(scope="module")
def site(
    rabbitmq: Node, stack: RunningStack, history: History, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    plain = settings_on(stack, f"rabbit-{secrets.token_hex(4)}")
    limits = plain.limits.model_copy(update={"lease": LEASE, "grant": GRANT})
    settings = plain.model_copy(update={"limits": limits})
    with pytest.MonkeyPatch.context() as patch, redis.Redis.from_url(stack.redis_url) as memory:
        patch.setenv(BROKER, rabbitmq.url)
        patch.setenv(TRANSPORT, '{"max_retries": 3}')
        client = Celery("elsewhere", broker=rabbitmq.url, set_as_current=False)
        with client, bridge(settings, tmp_path_factory.mktemp("bridge"), APP):
            leases = Leases(memory, settings.outbox.prefix)
            yield Site(rabbitmq, stack, settings, client, history, leases)


@pytest.fixture
def fleet(site: Site, tmp_path: Path) -> Iterator[Fleet]:
    """Workers to be started by the test."""
    made = Fleet(site.settings, tmp_path, app=APP)
    yield made
    made.end()


@pytest.fixture
def executing(site: Site, door: Callable[[str], Path]) -> dict[str, str]:
    """A free run and one of a limit, to be sent; their bodies end once the door is open."""
    gate = str(door("door"))
    return {kind: site.send(kind, 0.0, gate) for kind in ("free", "one")}


def test_a_second_delivery_of_a_run_that_lives_starts_nothing(
    site: Site, fleet: Fleet, executing: dict[str, str], door: Callable[[str], Path]
) -> None:
    """All that a worker has not acked comes again when its connection is cut; others are free."""
    first, runs = fleet.start("prefork", 3), list(executing.values())
    site.history.wait_for_starts(runs)
    second = fleet.start("prefork", 3)
    site.node.cut()
    for worker in (first, second):
        worker.process.says("Connection to broker lost")
    again = [site.send(kind, task_id=run) for kind, run in executing.items()]
    behind = site.send("one")
    site.are_told({behind: "waiting", site.send("free"): "completed"})
    assert again == runs
    door("door").touch()
    found = site.all_is_true({**dict.fromkeys(runs, 1), behind: 1})
    assert {row["attempt"] for row in found.values()} == {1}
    wait_until(lambda: site.node.messages() == 0, "all that came again is acked")


def test_runs_of_a_killed_worker_go_on_elsewhere_as_the_next_attempt(
    site: Site, fleet: Fleet, executing: dict[str, str], door: Callable[[str], Path]
) -> None:
    first, runs = fleet.start("prefork", 3), list(executing.values())
    site.history.wait_for_starts(runs)
    behind = site.send("one")
    site.are_told({behind: "waiting"})
    fleet.start("prefork", 3)
    first.kill("plug")
    site.history.wait_for_starts(runs, 4)
    site.are_told(dict.fromkeys(runs, "in_progress"))
    door("door").touch()
    found = site.all_is_true({**dict.fromkeys(runs, 2), behind: 1})
    assert {run: row["attempt"] for run, row in found.items()} == {**dict.fromkeys(runs, 2), behind: 1}


@pytest.mark.parametrize("how", ["warm", "cold"])
def test_what_a_stopped_worker_had_is_executed_by_the_next(
    how: str, site: Site, fleet: Fleet, executing: dict[str, str], door: Callable[[str], Path]
) -> None:
    first, runs, is_warm = fleet.start("prefork", 3), list(executing.values()), how == "warm"
    site.history.wait_for_starts(runs)
    others = {site.send("one"): "waiting", site.send("free", countdown=8): "scheduled"}
    site.are_told(others)
    runs.append(site.send("free", 0.0, str(door("door"))))  # now the pool is full
    site.history.wait_for_starts(runs)
    others |= {site.send("free"): "queued" for _ in range(3)}
    site.are_told(others)
    os.kill(first.pid, signal.SIGTERM if is_warm else signal.SIGQUIT)
    if is_warm:
        first.process.says("Warm shutdown")
        door("door").touch()
    first.process.end(0)
    # Told by the worker itself: the reaper would see to it after four leases.
    site.are_told(dict.fromkeys(runs, "completed" if is_warm else "queued"), within=3 * LEASE.total_seconds())
    fleet.start("prefork", 3)
    door("door").touch()
    found = site.all_is_true({**dict.fromkeys(runs, 1 if is_warm else 2), **dict.fromkeys(others, 1)})
    assert {row["attempt"] for row in found.values()} == {1}
