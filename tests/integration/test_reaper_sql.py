"""What the reaper asks the database, in the database itself; each test's transaction is rolled back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from bridge.events import Patch
from bridge.local.running import RunningStack
from tests.integration.test_mirror_sql import ALICE, Mirror, new_id, patch, queued

MINE = "default"
QUIET = 30.0
FIRST = str(uuid.UUID(int=0))


@pytest.fixture
def mirror(stack: RunningStack) -> Iterator[Mirror]:
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        connection.execute("delete from processing_jobs")
        mirror = Mirror(connection)
        mirror.become("service_role")
        yield mirror
        connection.rollback()


def silence(mirror: Mirror, run: str, seconds: float = QUIET + 1) -> None:
    mirror.connection.execute(
        "update public.processing_jobs set updated_at = now() - make_interval(secs => %s) where id = %s",
        (seconds, run),
    )


def quiet(mirror: Mirror, deployment: str = MINE, after: str = FIRST, most: int = 10) -> list[dict[str, Any]]:
    found = mirror.query("select public.quiet_runs(%s, %s, %s, %s) as it", deployment, QUIET, after, most)
    runs: list[dict[str, Any]] = found[0]["it"]
    return runs


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in found]


def expecting(run: str, version: int, expected: int) -> Patch:
    made = patch(run, version, existing=True, status="failed", error_code="worker_lost")
    made.expected = expected
    return made


@pytest.mark.parametrize(
    "status", ["scheduled", "queued", "waiting", "in_progress", "retrying", "cancelling"]
)
def test_a_run_that_nothing_is_heard_of_is_quiet(mirror: Mirror, status: str) -> None:
    run = new_id()
    mirror.write(queued(run, queue="io", root_id=run), patch(run, 2, status=status))
    assert quiet(mirror) == []
    silence(mirror, run)
    assert quiet(mirror) == [
        {
            "id": run,
            "root": run,
            "queue": "io",
            "task": "import",
            "status": status,
            "attempt": 1,
            "version": 2,
        }
    ]
    assert quiet(mirror, deployment="another") == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired"])
def test_a_run_that_has_ended_may_be_quiet_for_ever(mirror: Mirror, status: str) -> None:
    run = new_id()
    mirror.write(queued(run, queue="io"), patch(run, 2, status=status))
    silence(mirror, run)
    assert quiet(mirror) == []


def test_a_run_that_no_queue_brought_is_not_judged(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(patch(run, 1, fresh=True, status="in_progress", task="eager"))
    silence(mirror, run)
    assert quiet(mirror) == []


def test_a_run_is_not_quiet_while_its_children_go_on_or_have_just_ended(mirror: Mirror) -> None:
    parent, child = new_id(), new_id()
    mirror.write(queued(parent, queue="io"), queued(child, parent_id=parent))
    silence(mirror, parent)
    silence(mirror, child)
    assert quiet(mirror) == []
    mirror.write(patch(child, 2, status="completed"))
    silence(mirror, parent)
    assert quiet(mirror) == []
    silence(mirror, child)
    assert ids(quiet(mirror)) == [parent]


def test_quiet_runs_come_page_by_page(mirror: Mirror) -> None:
    runs = sorted(new_id() for _ in range(5))
    for run in runs:
        mirror.write(queued(run, queue="io"))
        silence(mirror, run)
    first = ids(quiet(mirror, most=3))
    assert (first, ids(quiet(mirror, after=first[-1], most=3))) == (runs[:3], runs[3:])


def test_the_deployment_of_a_row_is_that_of_who_made_it(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run))
    mirror.connection.execute("update public.processing_jobs set deployment = 'first'")
    mirror.write(patch(run, 2, status="in_progress"))
    assert mirror.row(run)["deployment"] == "first"


def test_what_expects_a_version_changes_a_row_that_has_not_moved(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, status="in_progress"))
    [told] = mirror.write(expecting(run, 9, expected=2))
    assert (told["outcome"], mirror.row(run)["status"]) == ("applied", "failed")
    [again] = mirror.write(expecting(run, 9, expected=2))
    assert (again["outcome"], again["snapshot"]["status"]) == ("duplicate", "failed")


def test_what_expects_a_version_changes_nothing_once_the_row_has_moved_on(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, status="in_progress"), patch(run, 3, message="alive"))
    [told] = mirror.write(expecting(run, 9, expected=2))
    assert (told["outcome"], mirror.row(run)["status"]) == ("stale", "in_progress")
    [unknown] = mirror.write(expecting(new_id(), 9, expected=2))
    assert unknown["outcome"] == "unknown"


# Tickets


def ticket(mirror: Mirror, claimed_by: str | None = MINE, status: str = "processing", age: float = 60) -> str:
    [row] = mirror.query(
        "insert into public.background_jobs (user_id, task, status, claimed_by, updated_at) "
        "values (%s, 'import', %s, %s, now() - make_interval(secs => %s)) returning id",
        ALICE, status, claimed_by, age,
    )  # fmt: skip
    return str(row["id"])


def quiet_tickets(mirror: Mirror) -> list[dict[str, Any]]:
    found = mirror.query("select public.quiet_tickets(%s, %s, 10) as it", MINE, QUIET)
    tickets: list[dict[str, Any]] = found[0]["it"]
    return tickets


def give_back(mirror: Mirror, tickets: list[dict[str, Any]]) -> int:
    found = mirror.query("select public.return_tickets(%s::jsonb) as it", psycopg.types.json.Json(tickets))
    count: int = found[0]["it"]
    return count


def test_tickets_that_were_claimed_and_never_dispatched_are_given_back(mirror: Mirror) -> None:
    lost, dispatched = ticket(mirror), ticket(mirror)
    ticket(mirror, status="pending")
    ticket(mirror, status="completed")
    ticket(mirror, age=1)
    ticket(mirror, claimed_by="another")
    mirror.write(queued(dispatched))
    found = quiet_tickets(mirror)
    assert ids(found) == [lost]
    assert give_back(mirror, found) == 1
    [row] = mirror.query("select status, claimed_by from public.background_jobs where id = %s", lost)
    assert row == {"status": "pending", "claimed_by": None}


def test_a_ticket_that_was_dispatched_meanwhile_is_not_given_back(mirror: Mirror) -> None:
    claimed, late = ticket(mirror), ticket(mirror)
    found = quiet_tickets(mirror)
    mirror.connection.execute(
        "update public.background_jobs set updated_at = now() where id = %s", (claimed,)
    )
    mirror.write(queued(late))
    assert give_back(mirror, found) == 0
