"""The second ledger: the rows, watched past all of our parts, and read over REST at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from bridge.local.running import RunningStack
from tests.acceptance.chaos.views import SHOWN, Views

EVERY = 0.15
PAGE = 1_000
_CHANGED = """
select *, coalesce(extract(epoch from updated_at), 0)::float as changed from processing_jobs
where updated_at > to_timestamp(%s)
"""


class Rows(Views):
    """The rows of all users as they change."""

    def __init__(self, stack: RunningStack) -> None:
        super().__init__()
        self._stack, self._over = stack, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._changed = 0.0

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            try:
                with psycopg.connect(
                    self._stack.database_url, row_factory=dict_row, autocommit=True, connect_timeout=3
                ) as connection:
                    while not self._over.wait(EVERY):
                        self._look(connection)
            except psycopg.Error:  # Postgres is away
                continue

    def _look(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        # What was begun before and committed after the last look has an older time.
        for row in connection.execute(_CHANGED, (self._changed - 5,)):
            self._changed = max(self._changed, row["changed"])
            row["parent_id"] = row["parent_id"] and str(row["parent_id"])
            self.accept(str(row["id"]), row)


def over_rest(stack: RunningStack, users: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All rows of these users and of their parts, with the service key."""
    found: dict[str, dict[str, Any]] = {}
    headers = {"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"}
    query = {"select": f"id,user_id,task,{','.join(SHOWN)}", "order": "id", "limit": str(PAGE)}
    while True:
        answer = httpx.get(
            f"{stack.url}/rest/v1/processing_jobs",
            params={**query, "offset": str(len(found)), "user_id": f"in.({','.join(users)})"},
            headers=headers,
            timeout=30,
        )
        page = answer.raise_for_status().json()
        found |= {row["id"]: row for row in page}
        if len(page) < PAGE:
            return found
