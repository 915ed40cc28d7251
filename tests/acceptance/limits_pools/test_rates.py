"""Rates hold over all workers, whatever way starts are spread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from bridge.local.running import RunningStack
from tests.acceptance.limits_pools.admissions import Admissions, closest
from tests.acceptance.limits_pools.conftest import POOLS, Fleet
from tests.acceptance.limits_pools.history import History
from tests.database import final_rows, rows
from tests.waiting import SLACK, wait_until

WINDOW = 0.99
"""A second, less the thousandth that rates are counted by, and what a clock's digits may lose."""


@pytest.fixture
def let_in(stack: RunningStack) -> Iterator[Admissions]:
    with redis.Redis.from_url(stack.redis_url) as client, Admissions(client).watched() as watched:
        yield watched


def test_no_window_of_a_second_sees_more_starts_than_the_rate(
    fleet: Fleet, stack: RunningStack, history: History, let_in: Admissions
) -> None:
    runs = [fleet.app.rated.delay().id for _ in range(18)]
    history.wait_for_ends(runs)
    assert history.doubled(runs) == {}
    times = let_in.of(runs)
    assert closest(times, 5) >= WINDOW, "the sixth comes a second after the first"
    assert times[-1] - times[0] < 3 + SLACK, "and nobody waits much longer than he has to"
    assert {row["status"] for row in final_rows(stack, runs).values()} == {"completed"}


def test_each_key_has_a_rate_of_its_own(fleet: Fleet, history: History, let_in: Admissions) -> None:
    task = fleet.app.rated_by_customer
    runs = {name: [task.delay(name).id for _ in range(4)] for name in ("a", "b", "c")}
    everybody = [run for each in runs.values() for run in each]
    history.wait_for_ends(everybody)
    for each in runs.values():
        assert closest(let_in.of(each), 2) >= WINDOW
    assert closest(let_in.of(everybody), 2) < WINDOW, "no key waits for another"


def test_units_add_up_and_a_heavy_run_is_not_overtaken_for_ever(
    fleet: Fleet, history: History, let_in: Admissions
) -> None:
    task, queue = fleet.app.weighed, fleet.queue("threads")  # one worker, so that they come in this order
    weights = [4, 4, 9, 1, 1, 1, 4, 10, 1]
    runs = [task.apply_async((units,), queue=queue).id for units in weights]
    history.wait_for_ends(runs)
    at = {run: let_in.of([run])[0] for run in runs}
    units = dict(zip(runs, weights, strict=True))
    for first in runs:
        inside = [units[run] for run in runs if at[first] <= at[run] < at[first] + WINDOW]
        assert sum(inside) <= 10
    order = sorted(runs, key=at.__getitem__)
    together = [runs[0:2], runs[2:4], runs[4:7], runs[7:8], runs[8:9]]  # those of one window, in any order
    assert [set(order[runs.index(each[0]) :][: len(each)]) for each in together] == list(map(set, together))


def test_what_a_second_has_room_for_starts_without_a_wait(
    fleet: Fleet, history: History, let_in: Admissions
) -> None:
    """The window of the test before has gone by, or its units are waited for: the second run tells."""
    task = fleet.app.weighed
    first = task.delay(10).id
    history.wait_for_ends([first])

    def together() -> bool:
        """Where nothing is slow; what waits for each other never comes within a window."""
        runs = [task.delay(2).id for _ in range(5)]
        history.wait_for_ends(runs)
        times = let_in.of(runs)
        assert times[0] - let_in.of([first])[0] >= WINDOW
        return times[-1] - times[0] < WINDOW

    wait_until(together, "five start at once that a second has room for")


def test_every_worker_holds_off_when_a_provider_says_so(
    fleet: Fleet, stack: RunningStack, history: History
) -> None:
    away = 5
    told = fleet.app.turned_away.delay(away).id
    history.wait_for_ends([told])
    runs = [fleet.app.asking_too.apply_async(queue=fleet.queue(pool)).id for pool in POOLS]
    why = "Waiting: paused for the moment."
    wait_until(
        lambda: [row["wait_reason"] for row in rows(stack, runs).values()] == [why] * len(runs), "all wait"
    )
    history.wait_for_ends(runs)
    since = history.of([told], "start")[0].seconds
    starts = [each.seconds - since for each in history.of(runs, "start")]
    assert min(starts) >= away
    assert max(starts) < away + 2 + SLACK, "and nobody holds off much longer"
