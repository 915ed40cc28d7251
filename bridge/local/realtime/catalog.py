"""What Postgres knows about a table: its columns, its key, its policies, and who may select what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .database import Connection
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

    @cached_property
    def key(self) -> list[Column]:
        """The primary key's columns."""
        return [column for column in self.columns if column.is_key]

    @cached_property
    def types(self) -> dict[str, str]:
        """The name of each column's type."""
        return {column.name: column.type_name for column in self.columns}

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
