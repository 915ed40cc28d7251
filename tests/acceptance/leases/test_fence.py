"""Workers that are taken for dead although they are not, and runs that start while Redis is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import Leases, Post, Rows, attempts, executing
from tests.acceptance.limits.fleet import Fleet, Worker
from tests.acceptance.limits.ledger import now
from tests.acceptance.limits.proxy import Proxy
from tests.lines import whole_lines
from tests.waiting import SLACK, wait_until

ENDS = ("returns", "fails", "again")
"""Ways in which a body can end that has not been told."""

TOLD = 1 + SLACK
"""Seconds within which an attempt learns that it has lost its lease: it looks once a second."""


def send(worker: Worker, number: int) -> None:
    """A signal to all its processes: the group, and the keeper, which has a session of its own."""
    keeper = worker.keeper()
    os.killpg(worker.pid, number)
    keeper.send_signal(number)


def lost(fleet: Fleet, run: str) -> Path:
    """What the body of a run leaves that was told of its lost lease."""
    return Path(fleet.ledger.path).with_name(f"lost-{run}")


def starts(fleet: Fleet, runs: list[str], times: int) -> bool:
    return all(len(fleet.ledger.of(run)) == times for run in runs)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_attempt_that_has_lost_its_lease_is_told_and_changes_nothing_any_more(
    pool: str, fleet: Fleet, sender: Post, rows: Rows, books: Leases
) -> None:
    first = fleet.start(pool, 5)
    meets, over = sender.send("long", "meets"), sender.send("long", "over")
    silent = [sender.send("silent", name) for name in ENDS]
    runs = [meets, over, *silent]
    wait_until(lambda: executing(fleet, *runs), "all execute")
    second = fleet.launch("prefork", 5)
    wait_until(lambda: {*map(rows.status, runs)} == {"in_progress"}, "rows show it")
    second.process.says(" ready.")
    send(first, signal.SIGSTOP)
    wait_until(lambda: starts(fleet, runs, 2), "all go on elsewhere")
    fleet.go("over")
    assert (rows.final(over)["attempt"], rows.last[over]["result"]) == (2, 2)
    for name in ENDS:
        fleet.go(f"{name}-1")
    before = {run: rows.last[run]["seq"] for run in runs}
    at = now()
    send(first, signal.SIGCONT)
    [told] = wait_until(lambda: whole_lines(lost(fleet, meets)), "the body is told")
    number, when = told.split()
    print(f"\n{pool}: told after {float(when) - at:.2f} s")
    assert float(when) - at < TOLD
    assert number == "1"
    first.process.end()
    assert all(fleet.ledger.of(run)[0].end for run in runs)
    assert rows.last[over]["seq"] == before[over]
    for name in ("meets", *(f"{name}-2" for name in ENDS)):
        fleet.go(name)
    assert [(rows.final(run)["attempt"], rows.last[run]["result"]) for run in runs] == [(2, 2)] * len(runs)
    wait_until(lambda: [sender.app.AsyncResult(run).result for run in runs] == [2] * len(runs), "results too")
    assert all(attempts(fleet, run) == [1, 2] for run in runs)
    wait_until(lambda: not books.leftovers(), "nothing is left")


def test_an_attempt_that_nobody_has_taken_over_keeps_its_run(
    fleet: Fleet, sender: Post, rows: Rows, books: Leases
) -> None:
    """Its lease runs out and is found to have, but no worker of its queue is there."""
    first = fleet.start("prefork", 2)
    run = sender.send("long", "kept")
    wait_until(lambda: executing(fleet, run), "it executes")
    watching = fleet.start("prefork", 1, "-Q", "none")
    send(first, signal.SIGSTOP)
    wait_until(lambda: rows.status(run) == "queued", "its row says that it is not executed")
    watching.process.says("are in their queues again")
    send(first, signal.SIGCONT)
    wait_until(lambda: books.state_of(run).get("state") == "held", "it is leased again")
    wait_until(lambda: rows.status(run) == "in_progress", "its row says so")
    wait_until(lambda: f"a second delivery of run {run} is dropped" in fleet.output(), "its message comes")
    fleet.go("kept")
    assert (rows.final(run)["attempt"], rows.last[run]["result"]) == (1, 1)
    assert len(fleet.ledger.of(run)) == 1
    wait_until(lambda: not books.leftovers(), "nothing is left")


def test_runs_start_while_redis_is_away_and_are_leased_when_it_is_back(
    proxy: Proxy,
    new_fleet: Callable[..., Fleet],
    settings: BridgeSettings,
    sender: Post,
    rows: Rows,
    books: Leases,
) -> None:
    limits = settings.limits.model_copy(update={"redis_url": proxy.url})
    fleet = new_fleet(settings.model_copy(update={"limits": limits}))
    first, second = fleet.launch("prefork", 3), fleet.launch("prefork", 1, "-Q", "none")
    ends = sender.send("long", "ends")
    wait_until(lambda: executing(fleet, ends) and second.is_ready(), "one executes before")
    proxy.refuses = True
    proxy.cut()
    runs = [sender.send("long", "ended"), sender.send("early", "ended")]
    wait_until(lambda: executing(fleet, *runs), "both start")
    fleet.go("ends")
    wait_until(lambda: fleet.ledger.ends()[ends], "one ends meanwhile")
    brief = sender.send("quick")
    wait_until(lambda: fleet.ledger.ends()[brief], "another begins and ends meanwhile")
    assert not any(books.state_of(run) for run in (*runs, brief))
    proxy.refuses = False
    wait_until(lambda: all(books.state_of(run).get("state") == "held" for run in runs), "both are leased")
    wait_until(lambda: books.state_of(ends).get("state") == "done", "the end of the other one is known")
    wait_until(lambda: books.state_of(brief).get("state") == "done", "and of the one that was never leased")
    sender.send("quick", task_id=brief)
    first.process.says(f"a second delivery of run {brief} is dropped")
    assert "pacer failed" not in fleet.output()
    first.kill("group")
    sender.app.control.add_consumer(sender.app.conf.task_default_queue)
    wait_until(lambda: len(fleet.ledger.of(runs[0])) == 2, "the one that can goes on elsewhere")
    fleet.go("ended")
    assert attempts(fleet, runs[0]) == [1, 2]
    assert (rows.final(runs[0])["status"], rows.last[runs[0]]["attempt"]) == ("completed", 2)
    assert rows.final(runs[1])["error_code"] == "worker_lost"
    wait_until(lambda: not books.leftovers(), "nothing is left")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_ends_gives_all_leases_back(
    pool: str, fleet: Fleet, sender: Post, books: Leases
) -> None:
    worker = fleet.start(pool, 4)
    runs = [sender.send(task, "last") for task in ("long", "early", "long", "early")]
    wait_until(lambda: executing(fleet, *runs), "all execute")
    os.kill(worker.pid, signal.SIGTERM)
    worker.process.says("Warm shutdown")
    fleet.go("last")
    assert worker.process.end() == 0
    assert not books.leftovers()
    assert {books.state_of(run)["state"] for run in runs} == {"done"}
