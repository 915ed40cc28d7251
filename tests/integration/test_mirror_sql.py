"""The mirror function and the policies, in the database itself; each test's transaction is rolled back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from bridge.events import LogLine, Patch
from bridge.local.running import RunningStack
from bridge.rows import _element

ALICE, BOB = str(uuid.uuid4()), str(uuid.uuid4())
AT = 1_700_000_000.0
TABLES = ["processing_jobs", "processing_job_logs", "background_jobs"]


@dataclass
class Mirror:
    """Speaks to the database as one role after another, inside one transaction."""

    connection: psycopg.Connection[dict[str, Any]]

    def become(self, role: str, user_id: str | None = None) -> None:
        claims = json.dumps({"role": role, "sub": user_id} if user_id else {"role": role})
        self.connection.execute("reset role")
        self.connection.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        self.connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))

    def write(self, *patches: Patch) -> list[dict[str, Any]]:
        batch = "[" + ",".join(_element(patch).decode() for patch in patches) + "]"
        found = self.connection.execute(
            "select public.mirror_runs(%s::jsonb) as results", (batch,)
        ).fetchone()
        assert found is not None
        results: list[dict[str, Any]] = found["results"]
        return results

    def query(self, text: str, *values: Any) -> list[dict[str, Any]]:
        return self.connection.execute(text, values).fetchall()  # type: ignore[arg-type]

    def row(self, run_id: str) -> dict[str, Any]:
        return self.query("select * from public.processing_jobs where id = %s", run_id)[0]

    def lines(self, run_id: str) -> list[str]:
        found = self.query("select * from public.processing_job_logs where job_id = %s order by seq", run_id)
        assert [line["seq"] for line in found] == list(range(1, len(found) + 1))
        return [line["message"] for line in found]

    def refused(self, text: str, *values: Any) -> str:
        """The SQLSTATE with which the database refuses a statement."""
        with pytest.raises(psycopg.Error) as refusal, self.connection.transaction():
            self.connection.execute(text, values)  # type: ignore[arg-type]
        assert refusal.value.sqlstate is not None
        return refusal.value.sqlstate


@pytest.fixture
def mirror(stack: RunningStack) -> Iterator[Mirror]:
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        mirror = Mirror(connection)
        mirror.become("service_role")
        yield mirror
        connection.rollback()


def new_id() -> str:
    return str(uuid.uuid4())


def patch(run_id: str, version: int, attempt: int = 1, **fields: Any) -> Patch:
    options = {name: fields.pop(name) for name in ("fresh", "existing", "parts", "logs") if name in fields}
    return Patch(run_id, attempt, AT + version, fields, version=version, **options)


def line(text: str, version: int) -> LogLine:
    return LogLine("info", text, AT, None, version)


def queued(run_id: str, version: int = 1, **fields: Any) -> Patch:
    return patch(
        run_id, version, fresh=True, status="queued", task="import", user_id=ALICE, channel="c-1", **fields
    )


# One run


def test_a_run_is_seen_from_queued_to_completed(mirror: Mirror) -> None:
    run = new_id()
    results = mirror.write(
        queued(run),
        patch(run, 2, status="in_progress", progress=30, current=3, total=10, message="Importing"),
        patch(run, 3, status="completed", result={"posts": 3}),
    )
    assert [result["outcome"] for result in results] == ["applied"] * 3
    assert [result["state_changed"] for result in results] == [True] * 3
    assert [result["progress_changed"] for result in results] == [False, True, True]
    assert [result["snapshot"]["seq"] for result in results] == [1, 2, 3]
    row = mirror.row(run)
    assert (row["status"], row["progress"], row["message"], row["result"]) == (
        "completed",
        100,
        "Importing",
        {"posts": 3},
    )
    assert row["created_at"].timestamp() == AT + 1
    assert row["started_at"].timestamp() == AT + 2
    assert row["finished_at"].timestamp() == AT + 3


def test_the_snapshot_is_the_row_as_rest_shows_it(mirror: Mirror) -> None:
    run = new_id()
    [result] = mirror.write(queued(run, max_attempts=3))
    row = mirror.query("select to_jsonb(run) as row from public.processing_jobs run where id = %s", run)[0][
        "row"
    ]
    snapshot = result["snapshot"]
    assert snapshot.pop("run_id") == row["id"]
    assert snapshot.pop("at") == row["updated_at"]
    assert snapshot == {name: row[name] for name in snapshot}
    assert not {"user_id", "metadata", "channel"} & set(snapshot)


def test_a_batch_delivered_twice_changes_nothing_and_tells_the_present_state(mirror: Mirror) -> None:
    run = new_id()
    batch = [
        queued(run, logs=[line("one", 1)]),
        patch(run, 2, status="in_progress", progress=5),
        patch(run, 3, status="failed", error_code="timeout", logs=[line("two", 3)]),
    ]
    last = mirror.write(*batch)[-1]
    before = mirror.row(run)
    for result in mirror.write(*batch):
        assert result["outcome"] == "duplicate"
        assert result["snapshot"] == last["snapshot"]
    assert mirror.row(run) == before
    assert mirror.lines(run) == ["one", "two"]


def test_a_stale_attempt_writes_nothing(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 5, attempt=2, status="in_progress", progress=40))
    before = mirror.row(run)
    results = mirror.write(patch(run, 9, attempt=1, status="completed", logs=[line("late", 9)]))
    assert results == [{"id": run, "outcome": "stale"}]
    assert mirror.row(run) == before
    assert mirror.lines(run) == []


@pytest.mark.parametrize("final", ["completed", "failed", "cancelled", "expired"])
def test_final_is_final(mirror: Mirror, final: str) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, status=final))
    before = mirror.row(run)
    for later in (
        patch(run, 3, status="in_progress"),
        patch(run, 4, progress=7),
        patch(run, 5, attempt=2, fresh=True, status="queued"),
    ):
        assert mirror.write(later)[0]["outcome"] == "final"
    assert mirror.row(run) == before


def test_the_bar_does_not_fall_back_when_a_new_attempt_begins(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(
        queued(run),
        patch(run, 2, status="in_progress", progress=60),
        patch(run, 3, status="retrying", error_code="error", error_message="The task failed."),
        patch(run, 4, attempt=2, fresh=True, status="in_progress"),
    )
    row = mirror.row(run)
    assert (row["attempt"], row["progress"], row["error_code"]) == (2, 60, "error")
    mirror.write(patch(run, 5, attempt=2, progress=10), patch(run, 6, attempt=2, status="completed"))
    row = mirror.row(run)
    assert (row["progress"], row["error_code"], row["error_message"]) == (100, None, None)


@pytest.mark.parametrize(("announced", "told"), [(3, 4), (4, 4), (5, 5), (None, None)])
def test_a_row_never_tells_of_more_attempts_than_there_may_be(
    mirror: Mirror, announced: int | None, told: int | None
) -> None:
    run = new_id()
    mirror.write(queued(run, max_attempts=announced), patch(run, 2, attempt=4, status="in_progress"))
    assert (mirror.row(run)["attempt"], mirror.row(run)["max_attempts"]) == (4, told)
    mirror.write(patch(run, 3, attempt=4, status="completed"))
    assert mirror.row(run)["max_attempts"] == told


def test_a_new_attempt_counts_even_when_redis_stepped_back(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run, version=900), patch(run, 901, status="in_progress", logs=[line("a", 901)]))
    mirror.write(patch(run, 5, attempt=2, fresh=True, status="in_progress", logs=[line("b", 5)]))
    row = mirror.row(run)
    assert (row["attempt"], row["version"]) == (2, 5)
    assert mirror.lines(run) == ["a", "b"]


def test_a_late_opening_takes_nothing_back(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(patch(run, 2, status="in_progress", state="STARTED"))
    mirror.write(queued(run, version=3, state="PENDING"))
    row = mirror.row(run)
    assert (row["status"], row["state"]) == ("in_progress", "STARTED")
    assert (row["task"], row["user_id"]) == ("import", uuid.UUID(ALICE))


def test_identity_is_written_once(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, user_id=BOB, channel="elsewhere", task="other", tags=["a"]))
    row = mirror.row(run)
    assert (row["user_id"], row["channel"], row["task"]) == (uuid.UUID(ALICE), "c-1", "import")
    assert row["tags"] == ["a"]


def test_a_patch_for_known_runs_makes_no_row(mirror: Mirror) -> None:
    run = new_id()
    assert mirror.write(patch(run, 1, existing=True, status="failed")) == [{"id": run, "outcome": "unknown"}]
    assert mirror.query("select from public.processing_jobs where id = %s", run) == []


def test_a_change_nobody_can_see_does_not_move_the_snapshot(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, progress=20, message="x"))
    before = mirror.row(run)
    [result] = mirror.write(patch(run, 3, progress=20, message="x", logs=[line("one", 3)]))
    assert (result["state_changed"], result["progress_changed"]) == (False, False)
    row = mirror.row(run)
    assert (row["seq"], row["updated_at"], row["version"]) == (before["seq"], before["updated_at"], 3)


def test_columns_of_the_bridge_cannot_be_set_by_a_worker(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run, id=new_id(), seq=99, log_seq=99, version_=1, parts_total=7, no_such_column=1))
    row = mirror.row(run)
    assert (row["seq"], row["log_seq"], row["parts_total"]) == (1, 0, 0)


# Waiting for a limit


WAITED = ("status", "state", "attempt", "wait_reason", "queue_position")


def waiting(run_id: str, version: int, position: int = 3, **fields: Any) -> Patch:
    named = {"status": "waiting", "state": "PENDING", "wait_reason": "limit", "queue_position": position}
    return patch(run_id, version, **{**named, **fields})


def place(run_id: str, version: int, position: int, **fields: Any) -> Patch:
    return patch(run_id, version, existing=True, queue_position=position, **fields)


def seen(mirror: Mirror, run_id: str) -> tuple[Any, ...]:
    row = mirror.row(run_id)
    return tuple(row[name] for name in WAITED)


def test_a_run_waits_moves_up_comes_back_and_waits_again(mirror: Mirror) -> None:
    run = new_id()
    parked, moved, again = mirror.write(
        queued(run), waiting(run, 2, 3), place(run, 3, 1), waiting(run, 4, 2, wait_reason="paused")
    )[1:]
    assert (parked["state_changed"], parked["progress_changed"]) == (True, False)
    assert moved["snapshot"]["queue_position"] == 1
    assert again["snapshot"]["seq"] == 4
    assert seen(mirror, run) == ("waiting", "PENDING", 1, "paused", 2)


@pytest.mark.parametrize("change", [{"queue_position": 2}, {"queue_position": 2, "wait_reason": "paused"}])
def test_moving_up_in_the_line_is_told_as_progress(mirror: Mirror, change: dict[str, Any]) -> None:
    run = new_id()
    mirror.write(queued(run), waiting(run, 2))
    [moved, same] = mirror.write(*(patch(run, at, existing=True, **change) for at in (3, 4)))
    assert (moved["state_changed"], moved["progress_changed"]) == (False, True)
    assert moved["snapshot"] == {**moved["snapshot"], **change, "status": "waiting", "seq": 3}
    assert (same["outcome"], same["state_changed"], same["progress_changed"]) == ("applied", False, False)


@pytest.mark.parametrize("status", ["in_progress", "cancelling", "cancelled", "expired", "failed"])
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_place_that_comes_after_the_wait_changes_nothing(mirror: Mirror, status: str, attempt: int) -> None:
    run = new_id()
    [*_, ended] = mirror.write(queued(run), waiting(run, 2), patch(run, 3, status=status))
    assert (ended["snapshot"]["wait_reason"], ended["snapshot"]["queue_position"]) == (None, None)
    before = mirror.query("select xmin::text, * from public.processing_jobs where id = %s", run)
    for late in (place(run, 4, 2, attempt=attempt), place(run, 5, 1, attempt=attempt, wait_reason="limit")):
        [result] = mirror.write(late)
        assert result["outcome"] in ("stale", "final")
        assert "snapshot" not in result
    assert mirror.query("select xmin::text, * from public.processing_jobs where id = %s", run) == before


@pytest.mark.parametrize("status", ["queued", "scheduled", "retrying"])
def test_a_place_says_nothing_of_a_run_that_is_not_in_the_line(mirror: Mirror, status: str) -> None:
    run = new_id()
    mirror.write(queued(run, version=1), patch(run, 2, status=status))
    before = mirror.row(run)
    assert (
        mirror.write(place(run, 3, 2), place(run, 4, 1, attempt=2)) == [{"id": run, "outcome": "stale"}] * 2
    )
    assert mirror.row(run) == before


def test_a_place_of_an_attempt_not_seen_yet_is_left_to_its_own_first_word(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), waiting(run, 2), place(run, 3, 1, attempt=2))
    assert seen(mirror, run) == ("waiting", "PENDING", 1, "limit", 3)


def test_a_wait_told_late_takes_nothing_back(mirror: Mirror) -> None:
    run = new_id()
    [*_, late] = mirror.write(
        queued(run), patch(run, 2, status="in_progress", state="STARTED"), waiting(run, 3), place(run, 4, 1)
    )[:3]
    assert (late["state_changed"], late["progress_changed"], late["snapshot"]["seq"]) == (False, False, 2)
    assert seen(mirror, run) == ("in_progress", "STARTED", 1, None, None)


def test_an_opening_told_late_leaves_the_run_in_the_line(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(waiting(run, 1), queued(run, version=2, state="PENDING"))
    assert seen(mirror, run) == ("waiting", "PENDING", 1, "limit", 3)
    assert mirror.row(run)["user_id"] == uuid.UUID(ALICE)


def test_the_next_attempt_waits_after_retrying(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(
        queued(run),
        patch(run, 2, status="in_progress"),
        patch(run, 3, attempt=2, fresh=True, status="retrying", state="RETRY"),
        waiting(run, 4, attempt=2),
        place(run, 5, 1, attempt=2),
    )
    assert seen(mirror, run) == ("waiting", "PENDING", 2, "limit", 1)


def test_a_run_that_went_back_to_its_queue_waits_again(mirror: Mirror) -> None:
    """As a worker that takes a run back tells it: without `fresh`, which would take nothing back."""
    run = new_id()
    back = patch(run, 3, status="queued", state="PENDING")
    mirror.write(queued(run), patch(run, 2, status="in_progress"), back, waiting(run, 4))
    assert seen(mirror, run) == ("waiting", "PENDING", 1, "limit", 3)


# Log lines


def test_log_lines_are_not_doubled_when_a_redelivery_is_folded_differently(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 3, logs=[line("a", 2), line("b", 3)]))
    [result] = mirror.write(patch(run, 4, logs=[line("a", 2), line("b", 3), line("c", 4)]))
    assert [(each["line"], each["message"]) for each in result["logs"]] == [(3, "c")]
    assert mirror.lines(run) == ["a", "b", "c"]


def test_lines_of_one_entry_keep_their_order(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run, logs=[line(str(number), 1) for number in range(12)]))
    assert mirror.lines(run) == [str(number) for number in range(12)]


# Children


def test_children_add_up_to_their_parent(mirror: Mirror) -> None:
    parent, first, second = new_id(), new_id(), new_id()
    mirror.write(queued(parent), patch(parent, 2, status="in_progress"))
    results = mirror.write(
        queued(first, 3, parent_id=parent),
        queued(second, 4, parent_id=parent),
        patch(first, 5, status="in_progress", progress=50, message="Importing mastodon...", step="Import"),
        patch(second, 6, status="failed"),
    )
    assert [len(result["parents"]) for result in results] == [0, 0, 1, 1]
    shown = results[-1]["parents"][0]["snapshot"]
    assert (shown["run_id"], shown["progress"], shown["message"], shown["step"]) == (
        parent,
        75,
        "Importing mastodon...",
        "Import",
    )
    assert mirror.row(parent)["progress"] == 75


def test_a_chain_is_one_bar_over_all_its_members(mirror: Mirror) -> None:
    parent, members = new_id(), [new_id() for _ in range(4)]
    mirror.write(queued(parent), patch(parent, 2, status="in_progress"))
    seen = []
    for place, member in enumerate(members):
        version = 10 * place + 10
        mirror.write(
            patch(member, version, status="queued", parent_id=parent, parts=0 if place else 4),
            patch(member, version + 1, status="in_progress", progress=50),
        )
        seen.append(mirror.row(parent)["progress"])
        mirror.write(patch(member, version + 2, status="completed"))
        seen.append(mirror.row(parent)["progress"])
    assert seen == [12, 25, 37, 50, 62, 75, 87, 100]
    assert mirror.row(parent)["status"] == "in_progress"


def test_nested_parents_hear_of_their_grandchildren(mirror: Mirror) -> None:
    top, middle, leaf = new_id(), new_id(), new_id()
    mirror.write(
        queued(top),
        queued(middle, 2, parent_id=top),
        queued(leaf, 3, parent_id=middle),
    )
    [result] = mirror.write(patch(leaf, 4, status="in_progress", progress=40, message="deep"))
    assert [parent["id"] for parent in result["parents"]] == [middle, top]
    assert [mirror.row(run)["progress"] for run in (middle, top)] == [40, 40]
    assert mirror.row(top)["message"] == "deep"


def test_a_parent_written_after_its_children_counts_them_too(mirror: Mirror) -> None:
    parent, child = new_id(), new_id()
    mirror.write(patch(child, 1, status="in_progress", progress=30, parent_id=parent, parts=2))
    mirror.write(queued(parent, 2))
    assert mirror.row(parent)["progress"] == 15
    mirror.write(patch(child, 3, status="completed"))
    assert mirror.row(parent)["progress"] == 50


def test_a_final_parent_hears_nothing_more(mirror: Mirror) -> None:
    parent, child = new_id(), new_id()
    mirror.write(queued(parent), queued(child, 2, parent_id=parent), patch(parent, 3, status="cancelled"))
    before = mirror.row(parent)
    [result] = mirror.write(patch(child, 4, status="in_progress", progress=90, message="still here"))
    assert result["parents"] == []
    assert mirror.row(parent) == before


def test_a_redelivered_child_adds_nothing_and_tells_its_parents_state(mirror: Mirror) -> None:
    parent, child = new_id(), new_id()
    batch = [queued(parent), queued(child, 2, parent_id=parent), patch(child, 3, progress=80)]
    mirror.write(*batch)
    before = mirror.row(parent)
    results = mirror.write(*batch)
    assert mirror.row(parent) == before
    assert results[-1]["parents"][0]["snapshot"]["progress"] == 80


def test_runs_that_report_in_a_circle_end(mirror: Mirror) -> None:
    one, two = new_id(), new_id()
    mirror.write(queued(one, parent_id=two), queued(two, 2, parent_id=one))
    mirror.write(patch(one, 3, progress=50), patch(one, 4, status="completed"), patch(one, 4))
    selfish = new_id()
    mirror.write(queued(selfish, parent_id=selfish), patch(selfish, 2, progress=50))
    assert mirror.row(selfish)["progress"] == 50


# Who may do what


def fill(mirror: Mirror) -> tuple[str, str]:
    mine, nobodys = new_id(), new_id()
    mirror.write(
        queued(mine, logs=[line("secret", 1)]), patch(nobodys, 1, status="queued", logs=[line("x", 1)])
    )
    mirror.query(
        "insert into public.background_jobs (user_id, task) values (%s, 'import'), (null, 'x') returning id",
        ALICE,
    )
    return mine, nobodys


def test_a_user_sees_their_own_rows_in_every_table(mirror: Mirror) -> None:
    mine, _ = fill(mirror)
    mirror.become("authenticated", ALICE)
    assert [str(row["id"]) for row in mirror.query("select id from public.processing_jobs")] == [mine]
    assert [row["message"] for row in mirror.query("select message from public.processing_job_logs")] == [
        "secret"
    ]
    assert len(mirror.query("select id from public.background_jobs")) == 1


@pytest.mark.parametrize("table", TABLES)
def test_another_user_sees_nothing_in_any_table(mirror: Mirror, table: str) -> None:
    fill(mirror)
    mirror.become("authenticated", BOB)
    assert mirror.query(f"select * from public.{table}") == []


@pytest.mark.parametrize("table", TABLES)
def test_anon_may_not_even_look(mirror: Mirror, table: str) -> None:
    fill(mirror)
    mirror.become("anon")
    assert mirror.refused(f"select * from public.{table}") == "42501"
    assert mirror.refused(f"insert into public.{table} default values") == "42501"


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize(
    "call",
    [
        "select public.mirror_runs('[]')",
        "select public.run_snapshots('{}')",
        "select public.taskcast_schema_version()",
        "select taskcast.mirror_run('{}')",
        "select taskcast.is_overtaken('{}')",
        "select public.quiet_runs('default', 0, null, 1)",
        "select public.quiet_tickets('default', 0, 1)",
        "select public.return_tickets('[]')",
    ],
)
def test_users_may_not_call_what_the_bridge_calls(mirror: Mirror, role: str, call: str) -> None:
    mirror.become(role, ALICE)
    assert mirror.refused(call) == "42501"


@pytest.mark.parametrize(
    "statement",
    [
        "insert into public.processing_jobs (user_id, input_file) values (auth.uid(), 'x')",
        "update public.processing_jobs set progress = 99",
        "delete from public.processing_jobs",
        "insert into public.processing_job_logs (job_id, seq, level, message) "
        "values (gen_random_uuid(), 1, 'info', 'x')",
        "delete from public.processing_job_logs",
        "update public.background_jobs set status = 'completed'",
        "delete from public.background_jobs",
        "truncate public.background_jobs",
    ],
)
def test_users_write_nothing_but_tickets(mirror: Mirror, statement: str) -> None:
    fill(mirror)
    mirror.become("authenticated", ALICE)
    assert mirror.refused(statement) == "42501"


def test_a_user_writes_pending_tickets_of_their_own(mirror: Mirror) -> None:
    mirror.become("authenticated", ALICE)
    [ticket] = mirror.query(
        "insert into public.background_jobs (task, args, status) "
        "values ('import', '{\"a\": 1}', 'pending') returning user_id, status, priority"
    )
    assert (ticket["user_id"], ticket["status"], ticket["priority"]) == (uuid.UUID(ALICE), "pending", 0)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("task, user_id", f"'import', '{BOB}'"),
        ("task, user_id", "'import', null"),
        ("task, status", "'import', 'completed'"),
        ("task, id", "'import', gen_random_uuid()"),
        ("task, priority", "'import', 1000"),
        ("task, error", "'import', 'x'"),
        ("task, created_at", "'import', '1970-01-01'"),
    ],
)
def test_a_ticket_cannot_be_forged(mirror: Mirror, columns: str, values: str) -> None:
    mirror.become("authenticated", ALICE)
    assert mirror.refused(f"insert into public.background_jobs ({columns}) values ({values})") == "42501"


def test_an_oversized_or_shapeless_ticket_is_refused(mirror: Mirror) -> None:
    mirror.become("authenticated", ALICE)
    insert = "insert into public.background_jobs (task, args) values (%s, %s)"
    assert mirror.refused(insert, "import", json.dumps({"a": "x" * 70_000})) == "23514"
    assert mirror.refused(insert, "import", "[]") == "23514"
    assert mirror.refused(insert, "", "{}") == "23514"


def test_an_idempotency_key_is_used_once_per_user(mirror: Mirror) -> None:
    insert = "insert into public.background_jobs (task, idempotency_key) values ('import', 'k') returning id"
    mirror.become("authenticated", BOB)
    mirror.query(insert)
    mirror.become("authenticated", ALICE)
    mirror.query(insert)
    assert mirror.refused(insert) == "23505"


@pytest.mark.parametrize(
    ("role", "topic", "extension", "received"),
    [
        ("authenticated", f"import-socials-{ALICE}", "broadcast", True),
        ("authenticated", f"import-socials-{ALICE}", "presence", True),
        ("authenticated", f"import-socials-{BOB}", "broadcast", False),
        ("authenticated", f"import-socials-{ALICE}-x", "broadcast", False),
        ("authenticated", ALICE, "broadcast", False),
        ("anon", f"import-socials-{ALICE}", "broadcast", False),
    ],
)
def test_a_user_receives_on_their_own_channels_only(
    mirror: Mirror, role: str, topic: str, extension: str, received: bool
) -> None:
    mirror.query(
        "insert into realtime.messages (topic, extension, private) values (%s, %s, true) returning topic",
        topic,
        extension,
    )
    mirror.query("select set_config('realtime.topic', %s, true)", topic)
    mirror.become(role, ALICE if role == "authenticated" else None)
    mirror.query("select set_config('realtime.topic', %s, true)", topic)
    assert bool(mirror.query("select topic from realtime.messages where topic = %s", topic)) == received
    if role == "authenticated":
        insert = "insert into realtime.messages (topic, extension) values (%s, 'broadcast')"
        assert mirror.refused(insert, topic) == "42501"


def test_a_row_written_by_hand_as_in_the_article_works(mirror: Mirror) -> None:
    insert = "insert into public.processing_jobs (user_id, input_file) values (%s, 'talk.mp3') returning *"
    [row] = mirror.query(insert, ALICE)
    assert (row["status"], row["progress"], row["result_url"]) == ("queued", 0, None)
    mirror.query(
        "update public.processing_jobs set status = 'in_progress', progress = 10, updated_at = now() "
        "where id = %s returning id",
        row["id"],
    )
    [result] = mirror.write(patch(str(row["id"]), 1, status="completed"))
    assert (result["outcome"], result["snapshot"]["progress"]) == ("applied", 100)


def test_browsers_can_subscribe_to_all_three_tables(mirror: Mirror) -> None:
    found = mirror.query("select tablename from pg_publication_tables where pubname = 'supabase_realtime'")
    assert set(TABLES) <= {row["tablename"] for row in found}


def test_every_table_of_ours_has_row_level_security(mirror: Mirror) -> None:
    found = mirror.query(
        "select relname from pg_class where relnamespace = 'public'::regnamespace "
        "and relkind = 'r' and not relrowsecurity"
    )
    assert found == []


def test_every_function_of_ours_fixes_its_search_path(mirror: Mirror) -> None:
    found = mirror.query(
        "select proname from pg_proc where (pronamespace = 'taskcast'::regnamespace or proname in "
        "('mirror_runs', 'run_snapshots', 'taskcast_schema_version', 'quiet_runs', 'quiet_tickets', "
        "'return_tickets')) "
        "and coalesce(array_to_string(proconfig, ','), '') not like '%%search_path=%%'"
    )
    assert found == []


def test_attempt_zero_means_whichever_the_run_is_in(mirror: Mirror) -> None:
    run = new_id()
    mirror.write(queued(run), patch(run, 2, attempt=3, status="in_progress"))
    [told] = mirror.write(
        patch(run, 4, attempt=0, existing=True, status="failed", error_code="upstream_failed")
    )
    assert told["outcome"] == "applied"
    row = mirror.row(run)
    assert (row["status"], row["attempt"], row["error_code"]) == ("failed", 3, "upstream_failed")
    unknown = new_id()
    [told] = mirror.write(patch(unknown, 1, attempt=0, existing=True, status="failed"))
    assert told["outcome"] == "unknown"


def test_a_parent_that_counts_for_itself_keeps_its_bar(mirror: Mirror) -> None:
    parent, child = new_id(), new_id()
    mirror.write(queued(parent), patch(parent, 2, status="in_progress", current=3, total=4, progress=75))
    mirror.write(queued(child, parent_id=parent), patch(child, 5, progress=10, message="half"))
    row = mirror.row(parent)
    assert (row["progress"], row["message"]) == (75, "half")
