"""Connections to the tenant's Postgres, and the one error for a Postgres that does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

Connection = psycopg.AsyncConnection[TupleRow]

#: How Postgres prints values must not depend on how the database is configured.
SESSION = (
    "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1"
)


class DatabaseUnavailable(Exception):
    """Postgres does not answer; what needed it fails, everything else goes on."""


class Database:
    """A small pool; a connection that broke while idle is replaced before anybody sees it."""

    def __init__(self, url: str, patience: timedelta = timedelta(seconds=3)) -> None:
        self._url, self._patience = url, patience
        self._pool = self._new_pool()

    async def open(self) -> None:
        """Connect; raises DatabaseUnavailable when Postgres is not there yet."""
        self._pool = self._new_pool()
        await self._pool.open()
        try:
            await self._pool.wait()
        except PoolTimeout as error:
            await self._pool.close()
            raise DatabaseUnavailable(str(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    def _new_pool(self) -> AsyncConnectionPool[Connection]:
        """A pool cannot be opened twice."""
        return AsyncConnectionPool(
            self._url,
            min_size=1,
            max_size=8,
            open=False,
            timeout=self._patience.total_seconds(),
            kwargs={"autocommit": True, "application_name": "taskcast_realtime", "options": SESSION},
            check=AsyncConnectionPool.check_connection,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode; raises DatabaseUnavailable."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, PoolClosed, psycopg.OperationalError) as error:
            raise DatabaseUnavailable(str(error)) from error

    @asynccontextmanager
    async def dry_run(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction that is always rolled back."""
        async with self.connection() as connection, connection.transaction(force_rollback=True):
            yield connection
