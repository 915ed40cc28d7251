"""Brokers that are not the limits' Redis: another database, a folder, RabbitMQ."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from bridge.limits.scripts import LimitScripts
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits_pools.conftest import APP, TRANSPORT, Together
from tests.acceptance.limits_pools.folders import FOLDER
from tests.acceptance.limits_pools.history import History
from tests.acceptance.limits_pools.rabbitmq import RABBIT, Node
from tests.conftest import settings_on
from tests.processes import BROKER, Process, worker
from tests.waiting import PATIENCE, wait_until


@dataclass(frozen=True)
class Address:
    """Where a broker is, and its transport options."""

    url: str
    options: dict[str, Any]
    restart: Callable[[], None] | None = None


@dataclass(frozen=True)
class Site:
    """A broker with a worker of each of two pools, and a plain app that dispatches to them by name."""

    address: Address
    settings: BridgeSettings
    client: Celery
    scripts: LimitScripts
    workers: dict[str, Process]

    def send(self, task: str, *args: Any, pool: str = "common", **options: Any) -> str:
        queue = f"{self.settings.outbox.prefix}-{pool}"
        return str(self.client.send_task(f"{APP}.{task}", args, queue=queue, **options).id)

    def in_line(self, count: int, task: str, *args: Any, **options: Any) -> list[str]:
        """So many runs that wait, in this order."""
        runs = []
        for _ in range(count):
            runs.append(self.send(task, *args, **options))
            wait_until(lambda: self.state(runs[-1]) == "waiting", "it waits", every=0.01)
        return runs

    def state(self, run: str) -> str:
        raw: Any = self.scripts._redis.hget(f"{self.scripts.root}run:{run}:1:0", "state")
        return (raw or b"").decode()


@contextmanager
def another_database(stack: RunningStack, folder: Path) -> Iterator[Address]:
    url = f"{stack.redis_url.rsplit('/', 1)[0]}/7"
    yield Address(url, {"global_keyprefix": f"{secrets.token_hex(4)}-"})


@contextmanager
def a_folder(stack: RunningStack, folder: Path) -> Iterator[Address]:
    for name in ("messages", "control", "processed"):
        (folder / name).mkdir()
    options = {
        "data_folder_in": str(folder / "messages"), "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"), "processed_folder": str(folder / "processed"),
        "store_processed": False, "polling_interval": 0.02,
    }  # fmt: skip
    yield Address(f"{FOLDER}://", options)


BROKERS = {"another database": another_database, "a folder": a_folder}


@pytest.fixture(
    scope="module",
    params=["another database", "a folder", pytest.param("RabbitMQ", marks=RABBIT)],
)
def site(
    request: pytest.FixtureRequest,
    stack: RunningStack,
    history: History,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("broker")
    settings = settings_on(stack, f"limits-{secrets.token_hex(4)}")
    with ExitStack() as standing, pytest.MonkeyPatch.context() as patch:
        if request.param == "RabbitMQ":
            node: Node = request.getfixturevalue("rabbitmq")
            address = Address(node.url, {"max_retries": 3}, node.restart)
        else:
            address = standing.enter_context(BROKERS[request.param](stack, folder))
        patch.setenv(BROKER, address.url)
        patch.setenv(TRANSPORT, json.dumps(address.options))
        client = Celery("elsewhere", broker=address.url, backend=stack.redis_url, set_as_current=False)
        client.conf.broker_transport_options = address.options
        prefix = settings.outbox.prefix
        client.conf.result_backend_transport_options = {"global_keyprefix": f"{prefix}-"}
        fleet = {
            pool: worker(settings, folder, APP, pool, 3, pool, ("-Q", f"{prefix}-common,{prefix}-{pool}"))
            for pool in ("prefork", "threads")
        }
        with client, redis.Redis.from_url(stack.redis_url) as memory, Together(fleet) as workers:
            yield Site(address, settings, client, LimitScripts(memory, prefix), workers)


@contextmanager
def held(site: Site, history: History, gate: Path, **options: Any) -> Iterator[str]:
    """A run of `one` that holds its slot until the block's end."""
    run = site.send("one", 0.0, str(gate), **options)
    history.wait_for_starts([run])
    try:
        yield run
    finally:
        gate.touch()
        history.wait_for_ends([run])


def test_a_worker_says_at_its_start_how_waiting_runs_come_back(site: Site) -> None:
    for process in site.workers.values():
        process.says("the broker is not the limits' Redis")
        process.says(f"Started consuming from {site.settings.outbox.prefix}-common.granted")


def test_never_above_the_limit_and_none_lost_or_doubled(
    site: Site, history: History, door: Callable[[str], Path]
) -> None:
    soon, gate = datetime.now(UTC) + timedelta(seconds=0.3), door("gate")
    ways: list[dict[str, Any]] = [{"pool": pool} for pool in ("common", "prefork", "threads")] * 10
    ways += [{"eta": soon}, {"countdown": 0.2}, {"expires": 600}, *({"priority": n} for n in range(3))]
    runs = [site.send("three", 0.02, "", str(gate), **way) for way in ways]
    history.wait_for_starts(runs, 3)
    gate.touch()
    retried = [site.send("three_again", 2) for _ in range(6)]
    for run in (*runs, *retried):
        AsyncResult(run, app=site.client).get(timeout=PATIENCE)
    history.wait_for_ends([*runs, *retried])
    assert history.most_at_once(runs) == 3
    assert history.most_at_once(retried) <= 3
    assert history.doubled(runs) == {}
    assert len(history.starts(retried)) == 18


def test_first_come_first_served(site: Site, history: History, door: Callable[[str], Path]) -> None:
    with held(site, history, door("gate")):
        waiting = [run for pool in ("prefork", "threads") for run in site.in_line(4, "one", pool=pool)]
        others = [site.send("free") for _ in range(20)]
        history.wait_for_ends(others)
        assert history.starts(waiting) == []
    history.wait_for_ends(waiting)
    assert history.starts(waiting) == waiting
    assert history.doubled(waiting) == {}


def test_a_better_priority_goes_first(site: Site, history: History, door: Callable[[str], Path]) -> None:
    best, worst = (0, 9) if site.address.url.startswith("redis") else (9, 0)  # AMQP counts the other way
    with held(site, history, door("gate")):
        late = site.in_line(2, "one", priority=worst)
        first = site.in_line(2, "one", priority=best)
    history.wait_for_ends([*late, *first])
    assert history.starts([*late, *first]) == [*first, *late]


def test_a_queue_that_is_added_while_workers_run_gives_waiting_runs_back(
    site: Site, history: History, door: Callable[[str], Path]
) -> None:
    name = f"{site.settings.outbox.prefix}-added"
    site.client.control.add_consumer(name, reply=True, limit=2, timeout=30)
    with held(site, history, door("gate"), pool="added"):
        waiting = site.in_line(3, "one", pool="added")
    history.wait_for_ends(waiting)
    assert history.starts(waiting) == waiting


def test_a_waiting_run_is_revoked_and_another_expires(
    site: Site, history: History, door: Callable[[str], Path]
) -> None:
    with held(site, history, door("gate"), pool="prefork"):
        revoked, behind = site.in_line(2, "one")
        expired = site.in_line(1, "one", expires=5)[0]
        site.client.control.revoke(revoked)
        for run in (revoked, expired):
            wait_until(lambda: AsyncResult(run, app=site.client).state == "REVOKED", "it has ended")  # noqa: B023
    history.wait_for_ends([behind])
    assert history.starts([revoked, expired]) == []


def test_a_retry_of_a_granted_run_goes_to_its_own_queue(site: Site, history: History) -> None:
    """The queue of granted runs is for those that hold a slot already."""
    runs = [site.send("three_again", 1) for _ in range(9)]
    history.wait_for_starts(runs, 18)
    queues = {each.label for each in history.of(runs, "queue")}
    assert queues == {f"{site.settings.outbox.prefix}-common"}


def test_runs_outlast_a_restart_of_the_broker(
    site: Site, history: History, door: Callable[[str], Path]
) -> None:
    if site.address.restart is None:
        pytest.skip("there is no server to restart")
    gate = door("gate")
    # In a child process: a worker with threads was once seen to hang when one ended during the reconnect,
    # which py-amqp's connections are not made for.
    running = site.send("one", 0.0, str(gate), pool="prefork")
    history.wait_for_starts([running])
    waiting = site.in_line(5, "one")
    site.address.restart()
    gate.touch()
    history.wait_for_ends(waiting, timeout=90)
    more = [site.send("three") for _ in range(10)]
    history.wait_for_ends(more, timeout=90)
    assert history.most_at_once([running, *waiting]) == 1
    assert history.doubled([running, *waiting, *more]) == {}
