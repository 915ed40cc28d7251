"""Messages on their way back to a living worker: what is lost on it, and where in line they come."""

from __future__ import annotations

import redis

from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import Post, Rows, attempts, executing
from tests.acceptance.leases.moments import DIES_TAKING
from tests.acceptance.limits.fleet import Fleet, Worker
from tests.waiting import wait_until

WAITING = 5


def a_worker_sees_to_the_dead(fleet: Fleet) -> None:
    """And takes none of their messages."""
    fleet.start("prefork", 1, "-Q", "none")


def dies_taking(fleet: Fleet) -> Worker:
    fleet.env[DIES_TAKING] = "1"
    try:
        return fleet.launch("prefork", 1)
    finally:
        del fleet.env[DIES_TAKING]


def test_a_message_that_a_second_worker_takes_along_as_it_dies_comes_back_again(
    fleet: Fleet, sender: Post, rows: Rows
) -> None:
    a_worker_sees_to_the_dead(fleet)
    first = fleet.launch("prefork", 1)
    run = sender.send("long", "ended")
    wait_until(lambda: executing(fleet, run), "it executes")
    first.kill("plug")
    for _ in range(2):
        second = dies_taking(fleet)
        wait_until(lambda worker=second: worker.process.exit_code() is not None, "it dies taking the message")
    fleet.launch("prefork", 1)
    wait_until(lambda: executing(fleet, run), "it executes again")
    fleet.go("ended")
    assert rows.final(run)["status"] == "completed"
    assert attempts(fleet, run) == [1, 2]


def starts_of(fleet: Fleet, runs: list[str]) -> list[str]:
    """The runs in the order in which they were started last."""
    last = {each.run: each.since for each in fleet.ledger.executions()}
    return sorted(runs, key=lambda run: last[run])


def test_what_a_dead_worker_had_taken_comes_before_what_waits(
    fleet: Fleet, sender: Post, client: redis.Redis, settings: BridgeSettings
) -> None:
    a_worker_sees_to_the_dead(fleet)
    first = fleet.launch("prefork", 2)
    runs = [sender.send("long", "ended")]
    wait_until(lambda: executing(fleet, *runs), "the first executes")
    runs.append(sender.send("long", "ended"))
    wait_until(lambda: executing(fleet, *runs), "both execute")
    others = [sender.send("quick") for _ in range(WAITING)]
    first.kill("plug")
    queue = f"{settings.outbox.prefix}-" + sender.app.conf.task_default_queue
    wait_until(lambda: client.llen(queue) == len(runs + others), "all are in the queue")
    fleet.go("ended")
    fleet.launch("prefork", 1)
    wait_until(lambda: set(fleet.ledger.ends()) == {*runs, *others}, "all have ended")
    assert starts_of(fleet, runs + others) == runs + others


def test_a_run_whose_process_died_comes_before_what_waits(fleet: Fleet, sender: Post) -> None:
    worker = fleet.launch("prefork", 1)
    run = sender.send("rejected", "ended")
    wait_until(lambda: executing(fleet, run), "it executes")
    others = [sender.send("quick") for _ in range(WAITING)]
    worker.kill("child", worker.pool())
    fleet.go("ended")
    wait_until(lambda: set(fleet.ledger.ends()) == {run, *others}, "all have ended")
    order = starts_of(fleet, [run, *others])
    assert order.index(run) <= 1  # the worker may have had one at hand
    assert attempts(fleet, run) == [1, 2]
