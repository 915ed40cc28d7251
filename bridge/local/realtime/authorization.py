"""Private channels: the row level security policies on realtime.messages decide who reads and who writes.

As on the real server the question is put to Postgres itself: rows are inserted and selected in the role and
with the claims of the asker, in a transaction that is rolled back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors

from .database import Connection, Database
from .tokens import Claims

BROADCAST, PRESENCE = "broadcast", "presence"

_BYPASS_REMEMBERED_SECONDS = 1.0


@dataclass
class Policies:
    """What a client may do on one private channel; none where nobody has asked yet."""

    broadcast_read: bool | None = None
    presence_read: bool | None = None
    broadcast_write: bool | None = None
    presence_write: bool | None = None

    @property
    def may_join(self) -> bool:
        """Reading either kind is enough."""
        return bool(self.broadcast_read or self.presence_read)

    @classmethod
    def everything(cls) -> Policies:
        """The policies of a public channel."""
        return cls(True, True, True, True)


class Authorizer:
    """Asks Postgres what a client may do; a policy that fails counts as a refusal."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bypassing: dict[str, tuple[bool, float]] = {}

    async def reads(self, topic: str, claims: Claims, extensions: Sequence[str]) -> dict[str, bool]:
        """Which of the extensions the client may read on the topic."""
        ids = {extension: uuid.uuid4() for extension in extensions}
        try:
            async with self._database.dry_run() as connection:
                await _insert_probes(connection, topic, ids)
                await _become(connection, topic, claims)
                cursor = await connection.execute(
                    "select id from realtime.messages where id = any(%s)", [list(ids.values())]
                )
                seen = {row[0] for row in await cursor.fetchall()}
        except psycopg.Error:
            seen = set()
        return {extension: row_id in seen for extension, row_id in ids.items()}

    async def writes(self, topic: str, claims: Claims, extensions: Sequence[str]) -> dict[str, bool]:
        """Which of the extensions the client may write on the topic."""
        if await self._bypasses(claims.role):
            return dict.fromkeys(extensions, True)
        try:
            async with self._database.dry_run() as connection:
                await _become(connection, topic, claims)
                return {
                    extension: await _may_insert(connection, topic, extension) for extension in extensions
                }
        except psycopg.Error:
            return dict.fromkeys(extensions, False)

    async def _bypasses(self, role: str) -> bool:
        """Whether no policy applies to the role: asked once a second, the service key sends thousands."""
        known = self._bypassing.get(role)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "select (rolbypassrls or rolsuper) and "
                "has_table_privilege(oid, 'realtime.messages', 'insert') from pg_roles where rolname = %s",
                [role],
            )
            row = await cursor.fetchone()
        bypasses = bool(row and row[0])
        self._bypassing[role] = bypasses, time.monotonic() + _BYPASS_REMEMBERED_SECONDS
        return bypasses


async def _insert_probes(connection: Connection, topic: str, ids: dict[str, uuid.UUID]) -> None:
    await connection.execute(
        "insert into realtime.messages (id, topic, extension) "
        "select * from unnest(%s::uuid[], %s::text[], %s::text[])",
        [list(ids.values()), [topic] * len(ids), list(ids)],
    )


async def _become(connection: Connection, topic: str, claims: Claims) -> None:
    """For the rest of the transaction, be the client that asks."""
    await connection.execute(
        "select set_config('role', %s, true), set_config('realtime.topic', %s, true), "
        "set_config('request.jwt.claims', %s, true), set_config('request.jwt.claim.sub', %s, true), "
        "set_config('request.jwt.claim.role', %s, true)",
        [claims.role, topic, claims.as_json, claims.sub, claims.role],
    )


async def _may_insert(connection: Connection, topic: str, extension: str) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(
                "insert into realtime.messages (topic, extension) values (%s, %s)", [topic, extension]
            )
    except errors.InsufficientPrivilege:
        return False
    return True
