"""Broadcasts that the database sent earlier, for members of private channels who ask when joining."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .database import Database

AT_MOST = 25
KEPT = timedelta(hours=72)


class BadReplay(Exception):
    """The `replay` part of a join cannot be used."""


@dataclass(frozen=True)
class StoredMessage:
    """A row of realtime.messages."""

    id: str
    event: str
    payload: Any
    binary_payload: bytes | None


class Replay:
    """Reads stored messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def messages(self, topic: str, request: Any) -> list[StoredMessage]:
        """The newest messages since `request["since"]` (milliseconds of the epoch), oldest first.

        Raises BadReplay.
        """
        since, limit = _read(request)
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select id::text, event, payload, binary_payload from realtime.messages "
                "where topic = %s and private and extension = 'broadcast' and inserted_at >= %s "
                "order by inserted_at desc limit %s",
                [topic, since, limit],
            )
            rows = await cursor.fetchall()
        return [StoredMessage(*row) for row in reversed(rows)]

    async def forget_old(self) -> None:
        """Delete what nobody can replay any more."""
        async with self._database.connection() as connection:
            await connection.execute(
                "delete from realtime.messages where inserted_at < (now() at time zone 'utc') - %s", [KEPT]
            )


def _read(request: Any) -> tuple[datetime, int]:
    since = request.get("since") if isinstance(request, dict) else None
    limit = request.get("limit", AT_MOST) if isinstance(request, dict) else None
    if not isinstance(since, int) or not isinstance(limit, int) or isinstance(since, bool):
        raise BadReplay
    try:
        moment = datetime.fromtimestamp(since / 1_000, UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError) as error:
        raise BadReplay from error
    return moment, max(1, min(limit, AT_MOST))
