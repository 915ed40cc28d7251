"""Pool processes that are spawned, not forked: what holds for the others holds for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import executing
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import Keys, Post
from tests.database import final_rows, logs
from tests.processes import bridge
from tests.waiting import wait_until

APP = "tests.acceptance.restarts.spawning"


@pytest.fixture(scope="module", autouse=True)
def mirror(settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bridge(settings, tmp_path_factory.mktemp("bridge"), APP):
        yield


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    """Workers to be started by the test."""
    made = Fleet(settings, tmp_path, app=APP)
    yield made
    made.end()


def test_spawned_processes_execute_report_and_give_back_what_they_held(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack
) -> None:
    worker = fleet.start("prefork", 2)
    spawned = [child for child in worker.pool() if any("spawn" in part for part in child.cmdline())]
    assert spawned
    runs = {"plain": post.send("plain", "end"), "limited": post.send("limited", "end")}
    wait_until(lambda: executing(fleet, *runs.values()), "they execute")
    assert {holder.split(":")[0] for holder in books.held()} == set(runs.values())
    assert books.holders()
    runs |= {"waits": post.send("limited", "", 0.05), "again": post.send("again", "", 0.05)}
    fleet.go("end")
    found = final_rows(stack, list(runs.values()))
    assert {kind: (found[run]["status"], found[run]["attempt"]) for kind, run in runs.items()} == {
        "plain": ("completed", 1), "limited": ("completed", 1), "waits": ("completed", 1),
        "again": ("completed", 2),
    }  # fmt: skip
    assert [line["message"] for line in logs(stack, runs["plain"])] == ["begun 1", "ends 1"]
    assert found[runs["plain"]]["message"] == "attempt 1"
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")
    assert "Traceback" not in fleet.output()


def test_what_a_worker_with_spawned_processes_had_when_it_was_killed_or_stopped_goes_on_elsewhere(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack
) -> None:
    """First its machine goes; then it is stopped coldly, which counts no attempt."""
    first = fleet.start("prefork", 1)
    run = post.send("plain", "long")
    wait_until(lambda: executing(fleet, run), "it executes")
    first.kill("plug")
    second = fleet.start("prefork", 1)
    wait_until(lambda: len(fleet.ledger.of(run)) == 2, "it goes on elsewhere")
    os.kill(second.pid, signal.SIGQUIT)
    second.process.end(0)
    fleet.start("prefork", 1)
    wait_until(lambda: len(fleet.ledger.of(run)) == 3, "it goes on elsewhere once more")
    fleet.go("long")
    row = final_rows(stack, [run])[run]
    assert (row["status"], row["attempt"], row["result"]) == ("completed", 2, 2)
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")
