"""Runs whose message comes again, or never runs: the row follows, whichever process knows of it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import User
from tests.database import final_rows, rows
from tests.processes import bridge, worker
from tests.waiting import wait_until


def test_a_run_that_is_delivered_again_completes(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        runs = [app.lost_once.delay(user.id).id, app.slow_once.delay(user.id).id]
        found = final_rows(stack, runs)
    assert [found[run]["status"] for run in runs] == ["completed", "completed"]
    assert [found[run]["error_code"] for run in runs] == [None, None]


def test_runs_revoked_before_they_start_never_do(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path, concurrency=1):
        busy = app.endless.delay(user.id)
        wait_until(lambda: _status(stack, busy.id) == "in_progress", "the worker is busy")
        reserved = app.fine.delay(user.id)
        stamped = app.fine.signature((user.id,))
        stamped.stamp(order="o-1")
        stamped = stamped.apply_async()
        wait_until(lambda: _reserved(app) >= {reserved.id, stamped.id}, "both are reserved")
        reserved.revoke()
        app.app.control.revoke_by_stamped_headers({"order": ["o-1"]})
        busy.revoke(terminate=True)
        found = final_rows(stack, [busy.id, reserved.id, stamped.id])
    assert {row["status"] for row in found.values()} == {"cancelled"}
    assert found[reserved.id]["started_at"] is found[stamped.id]["started_at"] is None


def _status(stack: RunningStack, run: str) -> str | None:
    row = rows(stack, [run]).get(run)
    return row["status"] if row else None


def _reserved(app: ModuleType) -> set[str]:
    told = app.app.control.inspect(timeout=10, limit=1).reserved() or {}
    return {request["id"] for requests in told.values() for request in requests}
