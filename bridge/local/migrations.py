"""Applies migrations in the Supabase CLI's format and keeps the CLI's book of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import psycopg
from psycopg.sql import SQL

from bridge.errors import MigrationError
from bridge.local.statements import split_statements

SHIPPED_MIGRATIONS = Path(__file__).parent.parent / "supabase" / "migrations"
_NAME = re.compile(r"(?P<version>\d+)_(?P<name>.+)\.sql")


async def migrate(database_url: str, directories: Sequence[Path] = (SHIPPED_MIGRATIONS,)) -> list[str]:
    """Apply what is not yet applied, in file-name order over all directories; return the new versions.

    Each file is one transaction. Raises MigrationError with the file and the line of the SQL.
    """
    applied = []
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        book = await connection.execute("select version from supabase_migrations.schema_migrations")
        known = {version for (version,) in await book.fetchall()}
        for version, name, path in _found(directories):
            if version not in known:
                await _apply(connection, version, name, path)
                applied.append(version)
        await connection.execute("notify pgrst, 'reload schema'")
    return applied


async def run_script(connection: psycopg.AsyncConnection, path: Path) -> list[str]:
    """Run every statement of a file in one transaction; return the statements."""
    script = await asyncio.to_thread(path.read_text)
    statements = []
    async with connection.transaction():
        for line, statement in split_statements(script):
            try:
                await connection.execute(SQL(statement))
            except psycopg.Error as error:
                raise _explained(error, path, line, statement) from error
            statements.append(statement)
    return statements


def _found(directories: Iterable[Path]) -> list[tuple[str, str, Path]]:
    found = []
    for path in (path for directory in directories for path in directory.glob("*.sql")):
        if not (parts := _NAME.fullmatch(path.name)):
            raise MigrationError(
                str(path), 1, "a migration's name is <version>_<name>.sql, such as 20260101000000_jobs.sql"
            )
        found.append((parts["version"], parts["name"], path))
    found.sort(key=lambda each: each[2].name)
    for (version, _, first), (other, _, second) in pairwise(found):
        if version == other:
            raise MigrationError(str(second), 1, f"version {version} is taken by {first}; rename one of them")
    return found


async def _apply(connection: psycopg.AsyncConnection, version: str, name: str, path: Path) -> None:
    async with connection.transaction():
        statements = await run_script(connection, path)
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements) "
            "values (%s, %s, %s)",
            (version, name, statements),
        )


def _explained(error: psycopg.Error, path: Path, line: int, statement: str) -> MigrationError:
    # The position counts characters from 1 and is missing for errors that concern no single word.
    if position := error.diag.statement_position:
        line += statement.count("\n", 0, int(position) - 1)
    parts = [error.diag.message_primary or str(error), error.diag.message_detail, error.diag.message_hint]
    return MigrationError(str(path), line, "; ".join(part for part in parts if part))
