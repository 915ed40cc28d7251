"""Pools whose runs execute in the worker's main process: what holds for leases elsewhere holds here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from bridge.local.running import RunningStack
from tests.acceptance.leases.conftest import executing
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import Keys, Post
from tests.database import final_rows
from tests.processes import Process
from tests.waiting import wait_until


@pytest.mark.parametrize("pool", ["gevent", "solo"])
def test_a_killed_workers_runs_go_on_elsewhere_and_a_warm_end_leaves_nothing_behind(
    pool: str, fleet: Fleet, post: Post, books: Keys, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    new_bridge()
    room = 1 if pool == "solo" else 2
    first = fleet.start(pool, room)
    runs = [post.send(kind, "long") for kind in ("plain", "limited")[:room]]
    wait_until(lambda: executing(fleet, *runs), "they execute")
    assert {holder.split(":")[0] for holder in books.held()} == set(runs)
    second = fleet.start(pool, room)
    first.kill("plug")
    wait_until(lambda: all(len(fleet.ledger.of(run)) == 2 for run in runs), "they go on elsewhere")
    os.kill(second.pid, signal.SIGTERM)
    fleet.go("long")
    assert second.process.end(0) == 0
    found = final_rows(stack, runs)
    assert {(row["status"], row["attempt"], row["result"]) for row in found.values()} == {("completed", 2, 2)}
    assert not books.leftovers()
