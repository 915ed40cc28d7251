"""Follows the database's changes through a temporary replication slot of its own.

One loop reads what was committed since it last looked: rows of realtime.messages become broadcasts, rows of
published tables go to the postgres_changes subscribers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import psycopg

from .changes import Changes
from .database import SESSION, Connection
from .fanout import Address, Fanout
from .frames import BinaryBroadcast
from .pgoutput import Change, Decoder
from .subscribing import PUBLICATION

logger = logging.getLogger(__name__)

MESSAGES_PUBLICATION = "supabase_realtime_messages_publication"
MOST_CHANGES_AT_ONCE = 500
#: Nobody has joined: look this much more rarely.
IDLE_FACTOR = 10
RETRY_AFTER = timedelta(seconds=1)

_READ = """
    select data from pg_logical_slot_get_binary_changes(
        %s, null, %s, 'proto_version', '1', 'publication_names', %s
    )
"""


class Replication:
    """The loop, from `start` to `stop`; it outlives restarts of Postgres."""

    def __init__(self, database_url: str, fanout: Fanout, changes: Changes, interval: timedelta) -> None:
        self._database_url, self._fanout, self._changes = database_url, fanout, changes
        self._interval = interval.total_seconds()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create the slot and follow it; raises psycopg.Error when Postgres refuses the slot."""
        connection, slot = await self._connect()
        self._task = asyncio.create_task(self._run(connection, slot))

    async def stop(self) -> None:
        """End the loop; the slot goes with its connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            self._changes.streaming.clear()

    async def _connect(self) -> tuple[Connection, str]:
        connection = await psycopg.AsyncConnection.connect(
            self._database_url,
            autocommit=True,
            application_name="taskcast_realtime_replication",
            options=SESSION,
        )
        slot = f"realtime_{uuid.uuid4().hex[:12]}"
        try:
            await connection.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput', true)", [slot]
            )
        except psycopg.Error:
            await connection.close()
            raise
        self._changes.streaming.set()
        return connection, slot

    async def _run(self, connection: Connection, slot: str) -> None:
        while True:
            try:
                async with connection:
                    await self._follow(connection, slot)
            except psycopg.OperationalError as error:
                logger.warning("following the database's changes failed, retrying: %s", error)
            except Exception:
                logger.exception("following the database's changes failed, retrying")
            self._changes.streaming.clear()
            connection, slot = await self._reconnect()
            self._changes.renew()

    async def _reconnect(self) -> tuple[Connection, str]:
        while True:
            await asyncio.sleep(RETRY_AFTER.total_seconds())
            with contextlib.suppress(psycopg.Error):
                return await self._connect()

    async def _follow(self, connection: Connection, slot: str) -> None:
        while True:
            publications = [MESSAGES_PUBLICATION]
            if self._changes.has_subscribers:
                publications.append(PUBLICATION)
            cursor = await connection.execute(
                _READ, [slot, MOST_CHANGES_AT_ONCE, ",".join(publications)], binary=True
            )
            messages = [row[0] for row in await cursor.fetchall()]
            if messages:
                await self._dispatch(connection, Decoder().decode(messages))
            else:
                await self._pause()

    async def _pause(self) -> None:
        for _ in range(IDLE_FACTOR):
            await asyncio.sleep(self._interval)
            if len(self._fanout):
                return

    async def _dispatch(self, connection: Connection, changes: Iterable[Change]) -> None:
        of_tables = []
        for change in changes:
            relation = change.relation
            if (relation.schema, relation.table) == ("realtime", "messages"):
                self._broadcast(change)
            else:
                of_tables.append(change)
        if of_tables:
            await self._changes.publish(connection, of_tables)

    def _broadcast(self, change: Change) -> None:
        row = change.new
        topic, event, message_id = row.get("topic"), row.get("event"), row.get("id")
        payload, binary = row.get("payload"), row.get("binary_payload")
        if change.kind != "INSERT" or topic is None or event is None or (payload or binary) is None:
            return
        metadata: dict[str, Any] = {"id": message_id}
        if binary is not None:
            broadcast = BinaryBroadcast(event, bytes.fromhex(binary.removeprefix("\\x")), False, metadata)
        else:
            broadcast = BinaryBroadcast(event, (payload or "null").encode(), True, metadata)
        address = Address(topic, row.get("private") == "t")
        self._fanout.broadcast(address, broadcast, message_id=message_id)
