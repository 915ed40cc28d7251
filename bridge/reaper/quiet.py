"""Rows that nothing was heard of for a while, as the reaper asks for them through Supabase's REST API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from bridge.rest import Rest
from bridge.settings import SupabaseSettings

_PAGE: Final = 20_000
_FIRST: Final = str(UUID(int=0))
_TICKETS: Final = 500


@dataclass(frozen=True, slots=True)
class QuietRun:
    """A run that is not final, by its row."""

    run_id: str
    root_id: str
    queue: str
    task: str
    status: str
    attempt: int
    version: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was claimed, and that no run has come of."""

    ticket_id: str
    claimed_at: str


class QuietRows:
    """Of one deployment; quiet for longer than `quiet`."""

    def __init__(
        self, settings: SupabaseSettings, timeout: timedelta, deployment: str, quiet: timedelta
    ) -> None:
        self._rest = Rest(settings, timeout)
        self._asked = {"deployment": deployment, "quiet": quiet.total_seconds()}

    async def runs(self) -> AsyncIterator[QuietRun]:
        """All of them, page by page.

        Raises:
            SupabaseUnavailable, KeyRefused, SchemaMissing
        """
        after = _FIRST
        while True:
            found = await self._ask("quiet_runs", {**self._asked, "after": after, "most": _PAGE})
            for run in self._read(_run, found):
                after = run.run_id
                yield run
            if len(found) < _PAGE:
                return

    async def tickets(self) -> list[Ticket]:
        """Those that were claimed longest ago; raises as `runs` does."""
        found = await self._ask("quiet_tickets", {**self._asked, "most": _TICKETS})
        return self._read(lambda each: Ticket(str(UUID(each["id"])), each["claimed_at"]), found)

    async def return_tickets(self, tickets: Sequence[Ticket]) -> int:
        """Give tickets back that nothing has happened to since; returns how many."""
        plain = [{"id": each.ticket_id, "claimed_at": each.claimed_at} for each in tickets]
        return int(await self._ask("return_tickets", {"tickets": plain}))

    async def close(self) -> None:
        await self._rest.close()

    async def _ask(self, function: str, arguments: dict[str, Any]) -> Any:
        return await self._rest.ask(function, json.dumps(arguments).encode())

    def _read(self, read: Any, found: Any) -> list[Any]:
        with self._rest.as_ours():
            return [read(each) for each in found]


def _run(found: dict[str, Any]) -> QuietRun:
    run_id = str(UUID(found["id"]))
    return QuietRun(
        run_id,
        str(UUID(found["root"] or run_id)),
        str(found["queue"]),
        str(found["task"]),
        str(found["status"]),
        int(found["attempt"]),
        int(found["version"]),
    )
