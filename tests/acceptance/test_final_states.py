"""Every way out of a Celery run ends in a final row, on every pool."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import uuid

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import User
from tests.database import final_rows, logs, rows
from tests.processes import bridge, worker
from tests.waiting import wait_until

Outcome = tuple[str, str | None]

OUTCOMES: dict[str, Outcome] = {
    "fine": ("completed", None),
    "broken": ("failed", "error"),
    "refused": ("failed", "empty_account"),
    "stubborn": ("completed", None),
    "given_up": ("failed", "error"),
    "ignored": ("completed", None),
    "rejected": ("failed", "rejected"),
    "passed_on": ("completed", None),
    "expired": ("expired", "expired"),
    "revoked": ("cancelled", "cancelled"),
    "unknown": ("failed", "unknown_task"),
}
PREFORK_ONLY: dict[str, Outcome] = {
    "lost": ("failed", "worker_lost"),
    "too_slow": ("failed", "timeout"),
    "far_too_slow": ("failed", "timeout"),
}


def dispatch(app: ModuleType, kind: str, user: User) -> str:
    """Start one run of a kind, as app code would; return its id."""
    if kind == "unknown":
        result = app.app.send_task("no.such.task", (user.id,))
    elif kind == "expired":
        result = app.fine.apply_async((user.id,), expires=datetime.now(UTC) - timedelta(seconds=5))
    elif kind == "revoked":
        task_id = uuid()
        wait_until(
            lambda: bool(app.app.control.revoke(task_id, reply=True, limit=1, timeout=10)),
            "the worker knows of it before it gets the message",  # "ready" is said before it listens
        )
        result = app.fine.apply_async((user.id,), task_id=task_id)
    else:
        result = getattr(app, kind).delay(user.id)
    return str(result.id)


@pytest.mark.parametrize(
    ("pool", "count"), [("prefork", 1_000), ("threads", 200), ("gevent", 200), ("solo", 100)]
)
@pytest.mark.timeout(300)
def test_a_final_state_is_never_missing(
    pool: str,
    count: int,
    app: ModuleType,
    stack: RunningStack,
    settings: BridgeSettings,
    user: User,
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    kinds = [chance.choice(list(OUTCOMES)) for _ in range(count)]
    if pool == "prefork":
        kinds[::100] = chance.choices(list(PREFORK_ONLY), k=len(kinds[::100]))
    expected = OUTCOMES | PREFORK_ONLY
    with bridge(settings, tmp_path), worker(settings, tmp_path, pool=pool, concurrency=4):
        runs = {dispatch(app, kind, user): kind for kind in kinds}
        found = final_rows(stack, runs, timeout=200)
    seen = {run: (row["status"], row["error_code"]) for run, row in found.items()}
    wrong = Counter((kind, seen[run]) for run, kind in runs.items() if seen[run] != expected[kind])
    assert not wrong
    assert len(found) == count
    unowned = {runs[run] for run, row in found.items() if str(row["user_id"]) != user.id}
    assert unowned <= {"unknown"}, "only a task that nobody declared has no owner"


def test_a_running_task_that_is_terminated_is_cancelled(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        result = app.endless.delay(user.id)
        wait_until(lambda: _status(stack, result.id) == "in_progress", "the run is in progress")
        result.revoke(terminate=True)
        row = final_rows(stack, [result.id])[result.id]
    assert (row["status"], row["state"], row["error_message"]) == (
        "cancelled",
        "REVOKED",
        "The run was stopped.",
    )


def test_attempts_are_numbered_and_their_reasons_logged(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        run = app.stubborn.delay(user.id).id
        row = final_rows(stack, [run])[run]
    assert (row["attempt"], row["max_attempts"], row["error_code"]) == (3, 4, None)
    assert [line["message"] for line in logs(stack, run)] == [
        "Attempt 1: The task failed (ConnectionError). Trying again.",
        "Attempt 2: The task failed (ConnectionError). Trying again.",
    ]


def test_what_an_exception_says_stays_inside(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path) as process, worker(settings, tmp_path):
        run = app.broken.delay(user.id).id
        row = final_rows(stack, [run])[run]
        told = f"{row} {logs(stack, run)} {process.output()}"
    assert row["error_message"] == "The task failed (ValueError)."
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("task", "fails", "outcome"),
    [
        ("in_parallel", False, ("completed", None)),
        ("in_parallel", True, ("failed", "upstream_failed")),
        ("one_by_one", False, ("completed", None)),
        ("one_by_one", True, ("failed", "upstream_failed")),
    ],
)
def test_a_run_that_hands_over_to_a_canvas_ends_with_it(
    task: str,
    fails: bool,
    outcome: Outcome,
    app: ModuleType,
    stack: RunningStack,
    settings: BridgeSettings,
    user: User,
    tmp_path: Path,
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        run = getattr(app, task).delay(user.id, fails=fails).id
        row = final_rows(stack, [run])[run]
    assert (row["status"], row["error_code"]) == outcome
    assert row["task"] == f"tests.acceptance.app.{task}"
    children = _children(stack, run)
    assert {child["channel"] for child in children} == {f"import-socials-{user.id}"}
    assert {str(child["user_id"]) for child in children} == {user.id}


def test_a_task_without_a_mirror_has_no_row(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        unseen, seen = app.unseen.delay(user.id).id, app.fine.delay(user.id).id
        final_rows(stack, [seen])
        assert rows(stack, [unseen]) == {}


def test_a_publisher_without_the_bridge_is_mirrored_from_the_worker_on(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    from celery import Celery

    plain = Celery("elsewhere", broker=settings.outbox.redis_url)
    plain.conf.update(
        broker_transport_options=app.app.conf.broker_transport_options,
        task_default_queue=app.app.conf.task_default_queue,
    )
    with plain, bridge(settings, tmp_path), worker(settings, tmp_path):
        good = plain.send_task("tests.acceptance.app.fine", (user.id,)).id
        bad = plain.send_task("tests.acceptance.app.fine", ("nobody",)).id
        found = final_rows(stack, [good, bad])
    assert (found[good]["status"], str(found[good]["user_id"])) == ("completed", user.id)
    assert (found[bad]["status"], found[bad]["error_code"]) == ("failed", "bad_arguments")


def _status(stack: RunningStack, run: str) -> str | None:
    row = rows(stack, [run]).get(run)
    return row["status"] if row else None


def _children(stack: RunningStack, run: str) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        return connection.execute("select * from processing_jobs where parent_id = %s", (run,)).fetchall()
