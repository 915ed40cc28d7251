"""Rates hold over all workers, whatever way starts are spread."""

from __future__ import annotations

from itertools import pairwise

from bridge.local.running import RunningStack
from tests.acceptance.limits_pools.conftest import POOLS, Fleet
from tests.acceptance.limits_pools.history import Entry, History
from tests.database import final_rows, rows
from tests.waiting import wait_until

# The promise is about admissions; what is written down are the starts of bodies, each so much later as the
# way to the pool takes. That differs from run to run by a few milliseconds, on two busy cores by tens:
# two starts may so look closer together than their admissions were.
LATENESS = 0.15


def closest(entries: list[Entry], count: int) -> float:
    """The shortest time in which `count` bodies started after another one."""
    times = [each.seconds for each in entries]
    return min((later - first for first, later in zip(times, times[count:], strict=False)), default=1e9)


def test_no_window_of_a_second_sees_more_starts_than_the_rate(
    fleet: Fleet, stack: RunningStack, history: History
) -> None:
    runs = [fleet.app.rated.delay().id for _ in range(18)]
    history.wait_for_ends(runs, timeout=20)
    entries = history.of(runs, "start")
    assert history.doubled(runs) == {}
    assert closest(entries, 5) >= 1 - LATENESS, "the sixth start comes a second after the first"
    took = entries[-1].seconds - entries[0].seconds
    assert 3 - LATENESS <= took < 5, "and nobody waits much longer than he has to"
    rows = final_rows(stack, runs)
    assert {row["status"] for row in rows.values()} == {"completed"}


def test_each_key_has_a_rate_of_its_own(fleet: Fleet, history: History) -> None:
    task = fleet.app.rated_by_customer
    runs = {name: [task.delay(name).id for _ in range(4)] for name in ("a", "b", "c")}
    everybody = [run for each in runs.values() for run in each]
    history.wait_for_ends(everybody, timeout=20)
    for each in runs.values():
        assert closest(history.of(each, "start"), 2) >= 1 - LATENESS
    entries = history.of(everybody, "start")
    assert entries[-1].seconds - entries[0].seconds < 2.5, "three keys take no longer than one"


def test_units_add_up_and_a_heavy_run_is_not_overtaken_for_ever(fleet: Fleet, history: History) -> None:
    task, queue = fleet.app.weighed, fleet.queue("threads")  # one worker, so that they come in this order
    weights = [4, 4, 9, 1, 1, 1, 4, 10, 1]
    runs = [task.apply_async((units,), queue=queue).id for units in weights]
    history.wait_for_ends(runs, timeout=30)
    entries = history.of(runs, "start")
    for number, first in enumerate(entries):
        inside = [each for each in entries[number:] if each.seconds < first.seconds + 1 - LATENESS]
        assert sum(int(each.label) for each in inside) <= 10
    order = history.starts(runs)
    together = [runs[0:2], runs[2:4], runs[4:7], runs[7:8], runs[8:9]]  # those of one window, in any order
    assert [set(order[runs.index(each[0]) :][: len(each)]) for each in together] == list(map(set, together))


def test_what_a_second_has_room_for_starts_without_a_wait(fleet: Fleet, history: History) -> None:
    """The window of the test before has gone by, or its units are waited for: the second run tells."""
    task = fleet.app.weighed
    first = task.delay(10).id
    history.wait_for_ends([first])
    runs = [task.delay(2).id for _ in range(5)]
    history.wait_for_ends(runs)
    times = [history.of([first], "start")[0].seconds, *(each.seconds for each in history.of(runs, "start"))]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] >= 1 - LATENESS
    assert max(gaps[1:]) < 0.5


def test_every_worker_holds_off_when_a_provider_says_so(
    fleet: Fleet, stack: RunningStack, history: History
) -> None:
    told = fleet.app.turned_away.delay(1.5).id
    history.wait_for_ends([told])
    runs = [fleet.app.asking_too.apply_async(queue=fleet.queue(pool)).id for pool in POOLS]
    why = "Waiting: paused for the moment."
    wait_until(
        lambda: [row["wait_reason"] for row in rows(stack, runs).values()] == [why] * len(runs), "all wait"
    )
    history.wait_for_ends(runs, timeout=10)
    since = history.of([told], "end")[0].seconds
    starts = [each.seconds - since for each in history.of(runs, "start")]
    assert min(starts) >= 1.5 - LATENESS
    assert max(starts) < 3.5, "and nobody holds off much longer"
