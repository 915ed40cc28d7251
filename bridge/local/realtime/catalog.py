"""What Postgres knows about a table: its columns, its key, its policies, and who may select what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from .database import Connection
from .tokens import Claims
from .values import needs_postgres


@dataclass(frozen=True)
class Column:
    """A column; `sql_type` is its type as SQL writes it."""

    name: str
    type_name: str
    sql_type: str
    is_key: bool
    needs_postgres: bool


@dataclass(frozen=True)
class Table:
    """A table and the columns that each role may select."""

    oid: int
    schema: str
    name: str
    has_rls: bool
    columns: tuple[Column, ...]
    selectable: dict[str, frozenset[str]]

    @property
    def key(self) -> list[Column]:
        """The primary key's columns."""
        return [column for column in self.columns if column.is_key]

    def type_of(self, column: str) -> str:
        """The name of a column's type."""
        return next((c.type_name for c in self.columns if c.name == column), "text")

    def may_select_key(self, role: str) -> bool:
        """Whether a role may select the whole primary key."""
        return {column.name for column in self.key} <= self.selectable[role]


_COLUMNS = """
    select c.relrowsecurity, n.nspname, c.relname, a.attname, t.typname, format_type(a.atttypid, a.atttypmod),
           coalesce(a.attnum = any(i.indkey), false), t.typcategory::text, t.typtype::text
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    left join pg_index i on i.indrelid = c.oid and i.indisprimary
    where c.oid = %s
    order by a.attnum
"""

_SELECTABLE = """
    select r.rolname::text, array_agg(a.attname::text)
    from pg_roles r, pg_attribute a
    where a.attrelid = %s and a.attnum > 0 and not a.attisdropped and r.rolname = any(%s)
      and has_column_privilege(r.oid, a.attrelid, a.attnum, 'SELECT')
    group by 1
"""


async def load_table(connection: Connection, oid: int, roles: Iterable[str]) -> Table | None:
    """A table as it is now; none when it is gone."""
    rows = await (await connection.execute(_COLUMNS, [oid])).fetchall()
    if not rows:
        return None
    has_rls, schema, name = rows[0][:3]
    columns = tuple(
        Column(column, type_name, sql_type, is_key, needs_postgres(category, kind))
        for *_, column, type_name, sql_type, is_key, category, kind in rows
    )
    granted = await (await connection.execute(_SELECTABLE, [oid, list(roles)])).fetchall()
    selectable = dict.fromkeys(roles, frozenset[str]()) | {role: frozenset(names) for role, names in granted}
    return Table(oid, schema, name, has_rls, columns, selectable)


async def visible_keys(
    connection: Connection, table: Table, claims: Claims, keys: list[tuple[str | None, ...]]
) -> set[tuple[str | None, ...]]:
    """Which rows, by primary key, the policies let a client see now. Needs a transaction of its own."""
    await connection.execute(
        "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true), "
        "set_config('request.jwt.claim.sub', %s, true), set_config('request.jwt.claim.role', %s, true)",
        [claims.role, claims.as_json, claims.sub, claims.role],
    )
    cursor = await connection.execute(
        _visibility_query(table), [list(column) for column in zip(*keys, strict=True)]
    )
    return {keys[row[0] - 1] for row in await cursor.fetchall()}


def _visibility_query(table: Table) -> sql.Composed:
    names = [sql.Identifier(f"key_{index}") for index in range(len(table.key))]
    conditions = [
        sql.SQL("t.{} = k.{}::{}").format(
            sql.Identifier(column.name), name, sql.SQL(_literal(column.sql_type))
        )
        for column, name in zip(table.key, names, strict=True)
    ]
    return sql.SQL(
        "select k.position from unnest({arrays}) with ordinality as k({names}, position) "
        "where exists (select from {table} t where {conditions})"
    ).format(
        arrays=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in names),
        names=sql.SQL(", ").join(names),
        table=sql.Identifier(table.schema, table.name),
        conditions=sql.SQL(" and ").join(conditions),
    )


def _literal(sql_type: str) -> str:
    """A type's name from format_type, which has quoted it where needed, safe in a query with parameters."""
    return sql_type.replace("%", "%%")
