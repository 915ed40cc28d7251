"""Looking at the rows themselves, past every client."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bridge.events import FINAL_STATUSES
from bridge.local.running import RunningStack
from tests.waiting import wait_until


def rows(stack: RunningStack, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rows of these runs by id."""
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        found = connection.execute("select * from processing_jobs where id = any(%s::uuid[])", (list(ids),))
        return {str(row["id"]): row for row in found}


def logs(stack: RunningStack, run_id: str) -> list[dict[str, Any]]:
    """The log lines of a run, in order."""
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        return connection.execute(
            "select * from processing_job_logs where job_id = %s order by seq", (run_id,)
        ).fetchall()


def final_rows(stack: RunningStack, ids: Collection[str], timeout: float = 90) -> dict[str, dict[str, Any]]:
    """Wait until all these runs are final, and return their rows."""

    def unfinished() -> list[str]:
        found = rows(stack, ids)
        return [run for run in ids if run not in found or found[run]["status"] not in FINAL_STATUSES]

    def all_final() -> bool:
        return not unfinished()

    try:
        wait_until(all_final, f"{len(ids)} runs are final", timeout, every=0.1)
    except AssertionError as error:
        left = rows(stack, unfinished()[:5])
        shown = [{k: row[k] for k in ("id", "task", "status", "state", "attempt")} for row in left.values()]
        raise AssertionError(f"{error}; {len(unfinished())} are not, such as {shown}") from None
    return rows(stack, ids)
