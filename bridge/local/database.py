"""Prepares the stack's database: what a Supabase project has from the start, then the migrations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import psycopg

from bridge.local.migrations import SHIPPED_MIGRATIONS, migrate, run_script

_SCRIPTS = tuple(Path(__file__).parent / "sql" / name for name in ("bootstrap.sql", "realtime.sql"))


async def prepare(database_url: str, more_migrations: Sequence[Path] = ()) -> None:
    """Run the bootstrap scripts when they are new to this database, then all new migrations."""
    scripts = [script for script in _SCRIPTS if script.exists()]
    fingerprint = hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        found = await connection.execute(
            "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
        )
        if (await found.fetchone()) != (fingerprint,):
            for script in scripts:
                await run_script(connection, script)
            await connection.execute(f"comment on database postgres is '{fingerprint}'")
    await migrate(database_url, (SHIPPED_MIGRATIONS, *more_migrations))
