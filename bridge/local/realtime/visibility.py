"""Which changed rows may each subscriber see? Policies in Postgres decide, for all of them in one call."""

from __future__ import annotations

import json

from psycopg import sql

from .catalog import Table
from .database import Connection
from .tokens import Claims

#: A primary key, each column as Postgres prints it.
Key = tuple[str | None, ...]


class Visibility:
    """Collects the questions of one table's batch, then has the answers."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._asked: dict[str, dict[Key, None]] = {}
        self._visible: dict[str, set[Key]] = {}

    def ask(self, claims: Claims, key: Key) -> None:
        """Note that a client wants to see a row."""
        self._asked.setdefault(claims.as_json, {})[key] = None

    async def answer(self, connection: Connection) -> None:
        """Let Postgres decide, in the role and with the claims of each client."""
        if not self._asked:
            return
        keys = [list(keys) for keys in self._asked.values()]
        async with connection.transaction(force_rollback=True):
            cursor = await connection.execute(
                "select asker, positions from realtime.visible_rows(%s, %s::jsonb[], %s::jsonb[])",
                [
                    _question(self._table).as_string(connection),
                    list(self._asked),
                    [json.dumps(of_client) for of_client in keys],
                ],
            )
            answers = await cursor.fetchall()
        claims = list(self._asked)
        for asker, positions in answers:
            self._visible[claims[asker - 1]] = {keys[asker - 1][p - 1] for p in positions or ()}

    def sees(self, claims: Claims, key: Key) -> bool:
        """The answer."""
        return key in self._visible.get(claims.as_json, ())


def _question(table: Table) -> sql.Composed:
    conditions = [
        sql.SQL("t.{} = (k.key ->> {})::{}").format(
            # A type's name comes from the catalog, quoted by Postgres itself.
            sql.Identifier(column.name),
            sql.Literal(index),
            sql.SQL(column.sql_type),
        )
        for index, column in enumerate(table.key)
    ]
    return sql.SQL(
        "select array_agg(k.position) from jsonb_array_elements($1) with ordinality k(key, position) "
        "where exists (select from {} t where {})"
    ).format(sql.Identifier(table.schema, table.name), sql.SQL(" and ").join(conditions))
