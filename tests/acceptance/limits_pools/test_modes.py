"""What `on_limit` says: a run that finds no slot is dropped, or takes the place of those before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from tests.acceptance.limits_pools.conftest import Fleet
from tests.acceptance.limits_pools.history import History
from tests.database import final_rows, rows
from tests.waiting import wait_until

Door = Callable[[str], Path]


def test_a_run_that_finds_no_slot_is_dropped(
    fleet: Fleet, stack: RunningStack, history: History, door: Door
) -> None:
    dropping, gate = fleet.app.dropping, door("gate")
    running = dropping.delay("a", until=str(gate)).id
    history.wait_for_starts([running])
    dropped = dropping.delay("a").id
    other = dropping.delay("b").id
    found = final_rows(stack, [dropped, other])
    assert (found[dropped]["status"], found[dropped]["error_code"]) == ("cancelled", "dropped")
    assert found[dropped]["error_message"] == "The run was not started: as many as allowed were going on."
    assert found[other]["status"] == "completed", "another key has a slot of its own"
    gate.touch()
    history.wait_for_ends([running])

    def goes() -> bool:
        later = dropping.delay("a").id
        return bool(final_rows(stack, [later])[later]["status"] == "completed")

    wait_until(goes, "the slot is free again")  # a moment after the body's last line
    assert history.starts([dropped]) == []


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_the_newest_run_takes_the_place_of_those_before_it(
    pool: str, fleet: Fleet, stack: RunningStack, history: History, door: Door
) -> None:
    newest, queue = fleet.app.newest, fleet.queue(pool)
    gate = str(door("gate"))
    old = newest.apply_async(("a", gate), queue=queue).id
    other = newest.apply_async(("b", gate), queue=fleet.queue("threads")).id
    history.wait_for_starts([old, other])
    new = newest.apply_async(("a",), queue=queue).id
    found = final_rows(stack, [old, new])
    assert (found[old]["status"], found[old]["error_message"]) == ("cancelled", "The run was stopped.")
    assert found[new]["status"] == "completed"
    assert history.of([new], "start")[0].at > history.of([old], "start")[0].at
    assert history.ended([other]) == set(), "another key's run is left alone"
    Path(gate).touch()
    assert final_rows(stack, [other])[other]["status"] == "completed"


def test_a_thread_cannot_be_stopped_so_the_newest_waits_and_those_between_are_superseded(
    fleet: Fleet, stack: RunningStack, history: History, door: Door
) -> None:
    """Nothing ends a Python thread from outside: its run goes on, and the limit holds all the same."""
    newest, queue, gate = fleet.app.newest, fleet.queue("threads"), door("gate")
    old = newest.apply_async(("a", str(gate)), queue=queue).id
    history.wait_for_starts([old])
    between = newest.apply_async(("a",), queue=queue).id
    wait_until(lambda: rows(stack, [between]).get(between, {}).get("status") == "waiting", "it waits")
    new = newest.apply_async(("a",), queue=queue).id
    row = final_rows(stack, [between])[between]
    assert (row["status"], row["error_code"]) == ("cancelled", "superseded")
    assert row["error_message"] == "A newer run has taken this one's place."
    wait_until(lambda: rows(stack, [new]).get(new, {}).get("status") == "waiting", "the newest waits")
    gate.touch()
    history.wait_for_ends([old, new])
    assert history.most_at_once([old, between, new]) == 1
    assert history.starts([old, between, new]) == [old, new]
    assert final_rows(stack, [new])[new]["status"] == "completed"
