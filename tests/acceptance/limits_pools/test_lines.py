"""Who is next, what a waiting run's row says, and how a wait ends early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import uuid
from celery.result import AsyncResult

from bridge.limits.scripts import LimitScripts
from bridge.local.running import RunningStack
from tests.acceptance.limits_pools.conftest import POOLS, Fleet
from tests.acceptance.limits_pools.history import History
from tests.conftest import User
from tests.database import final_rows, rows
from tests.waiting import SLACK, wait_until

Door = Callable[[str], Path]


@pytest.fixture
def scripts(fleet: Fleet, stack: RunningStack) -> Iterator[LimitScripts]:
    with redis.Redis.from_url(stack.redis_url) as client:
        yield LimitScripts(client, fleet.app.settings.outbox.prefix)


@contextmanager
def held(task: Any, history: History, gate: Path, *args: Any, **options: Any) -> Iterator[list[str]]:
    """A run that holds its slots until the block's end."""
    runs = [task.apply_async(args, {"until": str(gate)}, **options).id]
    history.wait_for_starts(runs)
    try:
        yield runs
    finally:
        gate.touch()
        history.wait_for_ends(runs)


def in_line(task: Any, scripts: LimitScripts, count: int, *args: Any, **options: Any) -> list[str]:
    """So many runs that wait, in this order: each is in line before the next is dispatched."""
    runs = []
    for _ in range(count):
        runs.append(task.apply_async(args, **options).id)
        wait_until(lambda: _state(scripts, runs[-1]) == "waiting", "it waits", every=0.002)
    return runs


def _state(scripts: LimitScripts, run: str) -> str:
    raw: Any = scripts._redis.hget(f"{scripts.root}run:{run}:1:0", "state")
    return (raw or b"").decode()


def wait_for_status(stack: RunningStack, runs: list[str], status: str) -> dict[str, dict[str, Any]]:
    wait_until(
        lambda: [each["status"] for each in rows(stack, runs).values()] == [status] * len(runs),
        f"all rows say {status}",
    )
    return rows(stack, runs)


def place(stack: RunningStack, run: str) -> tuple[str, str | None, int | None]:
    row = rows(stack, [run]).get(run, {})
    return row.get("status", ""), row.get("wait_reason"), row.get("queue_position")


def test_first_come_first_served_inside_a_key(
    fleet: Fleet, scripts: LimitScripts, history: History, door: Door
) -> None:
    both, waiting = fleet.app.both, []
    with held(both, history, door("gate"), "a"):
        for pool in POOLS:  # whichever worker has put them into the line
            waiting += in_line(both, scripts, 5, "a", queue=fleet.queue(pool))
    history.wait_for_ends(waiting)
    assert history.starts(waiting) == waiting


def test_keys_take_turns_and_a_full_key_is_skipped(
    fleet: Fleet, scripts: LimitScripts, history: History, door: Door
) -> None:
    both = fleet.app.both
    with held(both, history, door("gate"), "a"):
        many = in_line(both, scripts, 30, "a")
        others = [both.delay(customer, 0.02).id for customer in "bcbcbc"]
        history.wait_for_ends(others)
        assert history.starts(many) == [], "the key is full"
        # Two more keys are full, so all three slots are taken and everybody waits for everybody.
        with held(both, history, door("gate b"), "b"), held(both, history, door("gate c"), "c"):
            late = {customer: in_line(both, scripts, 10, customer) for customer in "def"}
    everybody = [run for runs in late.values() for run in runs]
    history.wait_for_ends([*many, *everybody])
    first = [each.label for each in history.of([*many, *everybody], "start")][:20]
    assert {"d", "e", "f"} <= set(first), "thirty of one key were there before, and do not go before all"
    for customer in "def":
        assert history.starts(late[customer]) == late[customer]


def test_a_better_priority_goes_first(
    fleet: Fleet, scripts: LimitScripts, history: History, door: Door
) -> None:
    one = fleet.app.one
    with held(one, history, door("gate")):
        late = in_line(one, scripts, 3, priority=6)
        soon = in_line(one, scripts, 3, priority=3)
        first = in_line(one, scripts, 3, priority=0)
    history.wait_for_ends([*late, *soon, *first])
    assert history.starts([*late, *soon, *first]) == [*first, *soon, *late]


def test_one_limit_is_shared_by_two_tasks_on_two_queues_of_two_workers(
    fleet: Fleet, history: History, door: Door
) -> None:
    app, gate, runs = fleet.app, door("gate"), []
    held_open = {"until": str(gate)}
    for _ in range(15):
        runs.append(app.sharing.apply_async(kwargs=held_open, queue=fleet.queue("threads")).id)
        runs.append(app.sharing_too.apply_async(kwargs=held_open, queue=fleet.queue("gevent")).id)
    history.wait_for_starts(runs, 2)
    gate.touch()
    history.wait_for_ends(runs)
    assert history.most_at_once(runs) == 2
    assert {each.task for each in history.of(runs)} == {"sharing", "sharing_too"}


def test_a_row_tells_why_and_where_and_moves_up(
    fleet: Fleet, stack: RunningStack, scripts: LimitScripts, history: History, door: Door
) -> None:
    one = fleet.app.one
    gates = [door(f"gate {number}") for number in range(4)]
    with held(one, history, gates[0]):
        waiting = [in_line(one, scripts, 1, 0.0, str(gate))[0] for gate in gates[1:]]
        why = "Waiting for a free slot."
        for number, run in enumerate(waiting, 1):
            wait_until(lambda: place(stack, run) == ("waiting", why, number), f"{run} is told place {number}")  # noqa: B023
    for number, run in enumerate(waiting):
        history.wait_for_starts([run])
        wait_until(lambda: place(stack, run) == ("in_progress", None, None), "it waits no more")  # noqa: B023
        for position, behind in enumerate(waiting[number + 1 :], 1):
            moved = ("waiting", why, position)
            wait_until(lambda: place(stack, behind) == moved, f"it has moved up to {position}")  # noqa: B023
        gates[number + 1].touch()
    found = final_rows(stack, waiting)
    assert {place(stack, run) for run in found} == {("completed", None, None)}


def test_a_key_that_is_full_and_a_limit_that_is_are_told_apart(
    fleet: Fleet, stack: RunningStack, history: History, door: Door
) -> None:
    both = fleet.app.both
    with (
        held(both, history, door("a"), "a"),
        held(both, history, door("b"), "b"),
        held(both, history, door("c"), "c"),
    ):
        same, other = both.delay("a").id, both.delay("z").id
        found = wait_for_status(stack, [same, other], "waiting")
    assert found[same]["wait_reason"] == "Waiting for an earlier run to end."
    assert found[other]["wait_reason"] == "Waiting for a free slot."
    history.wait_for_ends([same, other])


def test_places_in_a_long_line_are_told_within_their_budget(
    fleet: Fleet, stack: RunningStack, scripts: LimitScripts, history: History, door: Door
) -> None:
    one, budget = fleet.app.one, fleet.app.settings.limits.positions_per_second
    with held(one, history, door("gate")):
        waiting = in_line(one, scripts, 500)
        first, *others = waiting
        before = updates(wait_for_status(stack, waiting, "waiting"), others)
        began = time.monotonic()
        fleet.app.app.control.revoke(first)  # all others move up by one at the same time
        told = wait_until(
            lambda: max(0, updates(rows(stack, others), others) - before - 3 * budget), "places are told"
        )
        took = time.monotonic() - began
        assert told + 3 * budget <= budget * (took + 1), "and no more than may be in this time"
        wait_until(lambda: place(stack, others[0])[2] == 1, "the foremost is told")
        assert place(stack, others[-1])[2] == len(waiting), "before the last"
    history.wait_for_ends(others)
    assert history.starts(waiting) == others
    final_rows(stack, waiting)


def updates(found: dict[str, dict[str, Any]], runs: list[str]) -> int:
    """How many snapshots of these rows there were."""
    return sum(found[run]["seq"] for run in runs)


def test_a_waiting_run_that_is_revoked_ends_at_once_and_its_line_closes_up(
    fleet: Fleet, stack: RunningStack, scripts: LimitScripts, history: History, door: Door
) -> None:
    one = fleet.app.one
    with held(one, history, door("gate")) as running:
        waiting = in_line(one, scripts, 3)
        wait_for_status(stack, waiting, "waiting")
        fleet.app.app.control.revoke(waiting[1])
        row = final_rows(stack, [waiting[1]])[waiting[1]]
        assert (row["status"], row["error_code"], row["queue_position"]) == ("cancelled", "cancelled", None)
        assert AsyncResult(waiting[1], app=fleet.app.app).state == "REVOKED"
        wait_until(lambda: place(stack, waiting[2])[2] == 2, "the one behind has moved up")
        assert history.ended(running) == set(), "all that while its slot was taken"
    history.wait_for_ends([waiting[0], waiting[2]])
    assert history.starts(waiting) == [waiting[0], waiting[2]]


def test_a_run_that_expires_while_it_waits_ends_at_once(
    fleet: Fleet, stack: RunningStack, scripts: LimitScripts, history: History, door: Door
) -> None:
    one = fleet.app.one
    with held(one, history, door("gate")) as running:
        expires = datetime.now(UTC) + timedelta(seconds=4)
        [doomed] = in_line(one, scripts, 1, expires=expires)
        behind = one.delay().id
        row = final_rows(stack, [doomed])[doomed]
        late = (row["finished_at"] - expires).total_seconds()
        assert (row["status"], row["error_code"], row["queue_position"]) == ("expired", "expired", None)
        assert -0.01 < late < 1 + SLACK, "not before, and not long after"
        assert history.ended(running) == set(), "all that while its slot was taken"
    history.wait_for_ends([behind])
    assert history.starts([doomed]) == []


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_running_run_that_is_terminated_frees_its_slot(
    pool: str, fleet: Fleet, stack: RunningStack, history: History, door: Door
) -> None:
    one, queue = fleet.app.one, fleet.queue(pool)
    running = one.apply_async((), {"until": str(door("gate"))}, queue=queue)
    history.wait_for_starts([running.id])
    waiting = one.apply_async(queue=queue).id
    wait_for_status(stack, [waiting], "waiting")
    running.revoke(terminate=True)
    history.wait_for_ends([waiting])
    assert final_rows(stack, [running.id])[running.id]["status"] == "cancelled"
    assert "that nobody here uses is free again" not in fleet.workers[pool].output(), "nor as it was missed"


def test_a_run_that_is_revoked_between_its_grant_and_its_start_frees_its_slot(
    fleet: Fleet, stack: RunningStack, history: History, scripts: LimitScripts, door: Door
) -> None:
    """All slots of a worker are busy while one of its waiting runs is granted."""
    app, queue, leisure = fleet.app, fleet.queue("prefork"), door("leisure")
    with held(app.one, history, door("gate"), queue=fleet.queue("threads")):
        granted = in_line(app.one, scripts, 1, queue=queue)[0]
        busy = [app.free.apply_async((), {"until": str(leisure)}, queue=queue).id for _ in range(3)]
        history.wait_for_starts(busy)
    wait_until(lambda: _state(scripts, granted) == "granted", "it is granted")
    app.app.control.revoke(granted, reply=True, limit=len(POOLS), timeout=30)
    leisure.touch()
    last = app.one.delay().id
    history.wait_for_ends([last])
    assert final_rows(stack, [granted])[granted]["status"] == "cancelled"
    assert history.starts([granted]) == []


def test_a_run_of_a_user_waits_on_the_row_of_that_user(
    fleet: Fleet, stack: RunningStack, history: History, user: User, door: Door
) -> None:
    owned = fleet.app.owned
    with held(owned, history, door("gate"), user.id):
        waiting = owned.delay(user.id).id
        row = wait_for_status(stack, [waiting], "waiting")[waiting]
    assert (str(row["user_id"]), row["channel"]) == (user.id, f"imports-{user.id}")
    history.wait_for_ends([waiting])


def test_nothing_of_all_this_is_left_in_redis(fleet: Fleet, scripts: LimitScripts, history: History) -> None:
    """Runs last in this file: once nothing runs or waits, no slot is taken and no line is kept."""
    run = fleet.app.one.apply_async(task_id=uuid()).id
    history.wait_for_ends([run])
    client = scripts._redis

    def left() -> list[bytes]:
        many = ("slots:*", "line:*", "blocked:*", "held:*")
        single = ("at", "turns", "parked", "ending", "grants", "outgoing")
        return [key for name in many + single for key in client.scan_iter(f"{scripts.root}{name}")]

    wait_until(lambda: not left(), f"nothing is left; there is {left()}")
