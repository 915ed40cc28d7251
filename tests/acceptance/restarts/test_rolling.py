"""Workers that are replaced one after the other, while a few hundred runs go through."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from bridge.local.running import RunningStack
from tests.acceptance.limits.fleet import Fleet, Worker
from tests.acceptance.restarts.conftest import Keys, Post
from tests.acceptance.restarts.load import Load, all_is_true
from tests.processes import Process


def test_workers_are_replaced_under_load_and_no_run_is_lost_or_executed_twice(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    """The new one first, the old one first, and one that is told to be quick."""
    new_bridge()
    fleet.env["TASKCAST_TEST_SOFT"] = "20"  # for the slowest body; the others are over at once
    first, second = fleet.launch("prefork", 4), fleet.launch("prefork", 4)
    load = Load(post)

    def end(worker: Worker, number: int) -> None:
        worker.process.says(" ready.")
        os.kill(worker.pid, number)
        worker.process.end(0)

    with load.going_on():
        third = fleet.start("prefork", 4)
        end(first, signal.SIGTERM)
        end(second, signal.SIGTERM)
        fleet.start("prefork", 4)
        end(third, signal.SIGQUIT)
        load.reaches(300)
    all_is_true(load, fleet, books, stack)
