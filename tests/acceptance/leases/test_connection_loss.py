"""A worker that loses its connection to Redis while it executes goes on with what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import Leases, Post, Rows, attempts, executing
from tests.acceptance.leases.moments import STARTS_LATE
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits.proxy import Proxy
from tests.processes import environment
from tests.waiting import wait_until

ENDS = {"returns": "completed", "fails": "failed", "again": "completed"}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_what_executes_when_the_connection_breaks_ends_once_in_the_same_worker(
    pool: str,
    when: str,
    proxy: Proxy,
    distant: Fleet,
    sender: Post,
    rows: Rows,
    books: Leases,
    client: redis.Redis,
) -> None:
    fleet = distant
    worker = fleet.start(pool, len(ENDS) + 1)  # one is free, so it asks for more all the while
    runs = {name: sender.send("silent", name) for name in ENDS}
    wait_until(lambda: executing(fleet, *runs.values()), "all execute")

    def end(number: int) -> None:
        for name in ENDS:
            fleet.go(f"{name}-{number}")

    proxy.refuses = True
    for each in client.client_list(_type="pubsub"):  # kombu minds which connection it misses first
        if int(each["addr"].rpartition(":")[2]) in proxy.ports():
            client.client_kill_filter(addr=each["addr"])
    worker.process.says("Connection to broker lost")
    proxy.cut()
    if when == "meanwhile":
        end(1)
    wait_until(lambda: worker.process.output().count("Cannot connect to") > 1, "it has tried for a while")
    proxy.refuses = False
    wait_until(lambda: worker.process.output().count("Connected to redis") > 1, "it is connected again")
    end(1)
    end(2)
    assert {name: rows.final(run)["status"] for name, run in runs.items()} == ENDS
    for name, run in runs.items():
        assert attempts(fleet, run) == ([1, 2] if name == "again" else [1])
    assert rows.final(sender.send("quick"))["status"] == "completed"
    assert "Unrecoverable error" not in worker.process.output()
    wait_until(lambda: not books.leftovers(), "nothing is left")


def test_what_no_pool_process_had_been_given_when_the_connection_broke_executes_after_all(
    proxy: Proxy, distant: Fleet, sender: Post, rows: Rows, books: Leases
) -> None:
    """Celery drops it, as its message comes again."""
    fleet = distant
    fleet.env[STARTS_LATE] = str(Path(fleet.ledger.path).with_name("go-processes"))
    worker = fleet.start("prefork", 1)
    run = sender.send("quick")
    wait_until(lambda: books.state_of(run).get("state") == "held", "it is about to execute")
    proxy.cut()
    wait_until(lambda: worker.process.output().count("Connected to redis") > 1, "it is connected again")
    fleet.go("processes")
    assert rows.final(run)["status"] == "completed"
    assert attempts(fleet, run) == [1]
    wait_until(lambda: not books.leftovers(), "nothing is left")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_ended_in_a_worker_that_was_taken_for_dead_is_not_executed_again(
    pool: str,
    proxy: Proxy,
    distant: Fleet,
    settings: BridgeSettings,
    sender: Post,
    rows: Rows,
    books: Leases,
) -> None:
    """Its messages are in their queue again before it can tell."""
    fleet = distant
    told = {name: status for name, status in ENDS.items() if name != "again"}  # which waits to be sent
    worker = fleet.start(pool, len(told) + 1)
    fleet.env.update(environment(settings))
    witness = fleet.start("prefork", 1, "-Q", "another")
    runs = {name: sender.send("silent", name, ignore_result=True) for name in told}  # nor for a result
    wait_until(lambda: executing(fleet, *runs.values()), "all execute")
    proxy.frozen = True
    for name in told:
        fleet.go(f"{name}-1")
    wait_until(lambda: all(fleet.ledger.of(run)[0].end for run in runs.values()), "the bodies have ended")
    witness.process.says("messages that dead workers had taken are in their queues again")
    proxy.frozen = False
    assert {name: rows.final(run)["status"] for name, run in runs.items()} == told
    assert rows.final(sender.send("quick"))["status"] == "completed"  # it was behind them in the queue
    wait_until(lambda: not books.leftovers(), "nothing is left")
    assert [attempts(fleet, run) for run in runs.values()] == [[1]] * len(told)
    assert "Unrecoverable error" not in worker.process.output()
