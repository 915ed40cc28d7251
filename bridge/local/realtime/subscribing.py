"""Checks a subscription against the database: is the table published, are the filters real?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import psycopg
from psycopg import sql

from .bindings import BadBinding, Binding
from .catalog import Table, load_table
from .database import Connection
from .filters import IS_VALUES, Filter

PUBLICATION = "supabase_realtime"
MOST_IN_VALUES = 100

_PUBLISHED = """
    select format('%%I.%%I', schemaname, tablename)::regclass::oid from pg_publication_tables
    where pubname = %s and %s::text in ('*', schemaname::text) and %s::text in ('*', tablename::text)
"""


class _BadFilterValue(Exception):
    """A filter names a column or a value that the table does not have."""


async def check_binding(connection: Connection, binding: Binding, role: str) -> Binding:
    """The binding with its filter values as Postgres prints them; raises BadBinding."""
    cursor = await connection.execute(_PUBLISHED, [PUBLICATION, binding.schema, binding.table])
    oids = [row[0] for row in await cursor.fetchall()]
    if not oids:
        raise _refused(binding, "Please check Realtime is enabled for the given connect parameters", "")
    try:
        for oid in oids:
            table = await load_table(connection, oid, [role])
            if table is not None:
                binding = replace(binding, filters=await _checked(connection, binding.filters, table, role))
    except _BadFilterValue as error:
        raise _failed(binding, f"ERROR P0001 (raise_exception) {error}") from None
    except psycopg.DataError as error:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        raise _failed(binding, f"ERROR {error.sqlstate} ({name}) {error.diag.message_primary}") from None
    return binding


def _failed(binding: Binding, exception: str) -> BadBinding:
    advice = "An exception happened so please check your connect parameters"
    return _refused(binding, advice, f". Exception: {exception}")


def _refused(binding: Binding, advice: str, end: str) -> BadBinding:
    return BadBinding(
        f"Unable to subscribe to changes with given parameters. {advice}: [{binding.describe()}]{end}"
    )


async def _checked(
    connection: Connection, filters: tuple[Filter, ...], table: Table, role: str
) -> tuple[Filter, ...]:
    return tuple([await _canonical(connection, condition, table, role) for condition in filters])


async def _canonical(connection: Connection, condition: Filter, table: Table, role: str) -> Filter:
    column = next((c for c in table.columns if c.name == condition.column), None)
    if column is None or column.name not in table.selectable[role]:
        raise _BadFilterValue(f"invalid column for filter {condition.column}")
    check = _CHECKS.get(condition.operator)
    if check is not None:
        check(condition, column.type_name)
        return condition
    if len(condition.values) > MOST_IN_VALUES:
        raise _BadFilterValue(f"too many values for `in` filter. Maximum {MOST_IN_VALUES}")
    # A type's name comes from the catalog, quoted by Postgres itself.
    cast = sql.SQL("select v::{}::text from unnest(%s::text[]) with ordinality u(v, n) order by n").format(
        sql.SQL(column.sql_type.replace("%", "%%"))
    )
    rows = await (await connection.execute(cast, [list(condition.values)])).fetchall()
    return replace(condition, values=tuple(row[0] for row in rows))


def _check_is(condition: Filter, type_name: str) -> None:
    keyword = condition.values[0]
    if keyword not in IS_VALUES:
        raise _BadFilterValue("invalid value for is filter: must be null, true, false, or unknown")
    if keyword != "null" and type_name != "bool":
        raise _BadFilterValue(f"is {keyword} filter requires a boolean column, got {type_name}")


def _check_text(condition: Filter, type_name: str) -> None:
    if type_name not in ("text", "varchar", "bpchar", "name", "citext"):
        raise _BadFilterValue(
            f"operator {condition.operator} requires a text-compatible column type, got {type_name}"
        )


def _check_pattern(condition: Filter, type_name: str) -> None:
    _check_text(condition, type_name)
    try:
        re.compile(condition.values[0])
    except re.error as error:
        raise _BadFilterValue(f"invalid regular expression: {error}") from None


_CHECKS: dict[str, Callable[[Filter, str], None]] = {
    "is": _check_is,
    "like": _check_text,
    "ilike": _check_text,
    "match": _check_pattern,
    "imatch": _check_pattern,
}
