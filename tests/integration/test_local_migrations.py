"""Migrations in the Supabase CLI's format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from bridge.errors import MigrationError
from bridge.local.migrations import SHIPPED_MIGRATIONS, migrate
from bridge.local.running import RunningStack


@pytest.fixture
async def connection(stack: RunningStack) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        yield connection
        await connection.execute("drop table if exists public.migrated")
        await connection.execute("delete from supabase_migrations.schema_migrations where version like '9%'")


async def book(connection: psycopg.AsyncConnection) -> list[tuple[str, str, int]]:
    found = await connection.execute(
        "select version, name, cardinality(statements) from supabase_migrations.schema_migrations "
        "order by version"
    )
    return await found.fetchall()


async def test_the_shipped_ones_are_booked_as_the_cli_does(connection: psycopg.AsyncConnection) -> None:
    shipped = [path.stem.partition("_") for path in sorted(SHIPPED_MIGRATIONS.glob("*.sql"))]
    booked = [(version, name) for version, name, _ in await book(connection)]
    assert booked == [(version, name) for version, _, name in shipped]


async def test_each_is_applied_once_and_in_order(
    stack: RunningStack, connection: psycopg.AsyncConnection, tmp_path: Path
) -> None:
    (tmp_path / "90000000000002_second.sql").write_text("insert into public.migrated values (2);")
    (tmp_path / "90000000000001_first.sql").write_text(
        "create table public.migrated (n int);\ninsert into public.migrated values (1);"
    )
    assert await migrate(stack.database_url, [tmp_path]) == ["90000000000001", "90000000000002"]
    assert await migrate(stack.database_url, [tmp_path]) == []
    rows = await connection.execute("select array_agg(n order by n), pg_get_userbyid(relowner) "
        "from public.migrated, pg_class where oid = 'public.migrated'::regclass group by 2")  # fmt: skip
    assert await rows.fetchone() == ([1, 2], "postgres")
    assert (await book(connection))[-2:] == [("90000000000001", "first", 2), ("90000000000002", "second", 1)]


@pytest.mark.parametrize(
    ("script", "line", "problem"),
    [
        ("create table public.migrated (n int);\n\nselect\n  nothing;", 4, 'column "nothing" does not exist'),
        ("select 1;\ncreate table public.migrated (n int);\nselect 1/0;", 3, "division by zero"),
        ("select 1;\n\nselec 2;", 3, 'syntax error at or near "selec"'),
    ],
)
async def test_a_failing_one_is_named_with_its_line_and_leaves_nothing(
    stack: RunningStack,
    connection: psycopg.AsyncConnection,
    tmp_path: Path,
    script: str,
    line: int,
    problem: str,
) -> None:
    path = tmp_path / "90000000000003_wrong.sql"
    path.write_text(script)
    with pytest.raises(MigrationError) as told:
        await migrate(stack.database_url, [tmp_path])
    assert (told.value.file, told.value.line) == (str(path), line)
    assert problem in str(told.value)
    found = await connection.execute("select to_regclass('public.migrated')")
    assert await found.fetchone() == (None,)
    assert not [row for row in await book(connection) if row[0].startswith("9")]


@pytest.mark.parametrize("names", [["jobs.sql"], ["90_a.sql", "90_b.sql"]])
async def test_names_that_cannot_be_booked_are_refused(
    stack: RunningStack, tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("select 1;")
    with pytest.raises(MigrationError, match=names[-1]):
        await migrate(stack.database_url, [tmp_path])
