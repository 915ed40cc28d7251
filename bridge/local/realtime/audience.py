"""One table's changes of one batch: who wanted each, who may see it, and the frames they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from .bindings import Binding
from .catalog import Column, Table, load_table
from .database import Connection
from .filters import holds
from .frames import Frame, encode
from .pgoutput import Change
from .records import build_data, current_row, key_of, refusal, refused_data
from .tokens import Claims
from .values import to_json
from .visibility import Visibility

if TYPE_CHECKING:
    from .channel import Channel


@dataclass(frozen=True, eq=False)
class Subscription:
    """One binding of one channel, in the name of the claims it had when it subscribed."""

    channel: Channel
    binding: Binding
    claims: Claims
    since_lsn: int

    def wants(self, change: Change, table: Table) -> bool:
        """Whether the binding asks for a change; a filter on an unknown column lets nothing pass."""
        if self.binding.event not in ("*", change.kind) or change.lsn <= self.since_lsn:
            return False
        row = current_row(change) if self.binding.filters else {}
        return all(
            condition.column in row and holds(condition, row[condition.column], table.types[condition.column])
            for condition in self.binding.filters
        )


class Audience:
    """The subscriptions to one table, with all that Postgres has to say on a batch of its changes."""

    def __init__(self, table: Table, subscriptions: list[Subscription]) -> None:
        self._table, self._subscriptions = table, subscriptions
        self._wanted: dict[int, list[Subscription]] = {}
        self._visibility = Visibility(table)
        self._exotic: dict[tuple[str, str], Any] = {}

    @classmethod
    async def gather(
        cls, connection: Connection, subscriptions: list[Subscription], changes: list[Change]
    ) -> Audience | None:
        """Ask Postgres about one table's changes; none when the table is gone."""
        roles = {subscription.claims.role for subscription in subscriptions}
        table = await load_table(connection, changes[0].relation.oid, roles)
        if table is None:
            return None
        audience = cls(table, subscriptions)
        wanted = [change for change in changes if audience._note(change)]
        await audience._visibility.answer(connection)
        audience._exotic = await _exotic_values(connection, table, wanted)
        return audience

    def deliver(self, change: Change) -> None:
        """Send a change: one frame to each channel, naming all its bindings that match."""
        groups: dict[tuple[Channel, str, tuple[str, ...] | None], list[int]] = {}
        for subscription in self._wanted[id(change)]:
            if self._may_see(subscription, change):
                group = subscription.channel, subscription.claims.role, subscription.binding.select
                groups.setdefault(group, []).append(subscription.binding.id)
        data: dict[tuple[str, tuple[str, ...] | None], dict[str, Any]] = {}
        frames: dict[tuple[Any, ...], Frame] = {}
        for (channel, role, select), ids in groups.items():
            if (role, select) not in data:
                data[role, select] = self._data(change, role, select)
            shape = channel.version, channel.topic, channel.config.is_legacy, role, select, tuple(ids)
            if shape not in frames:
                frames[shape] = _frame(channel, change, data[role, select], ids)
            if not channel.is_closed:
                channel.push(frames[shape])

    def _note(self, change: Change) -> list[Subscription]:
        """Find who wants a change, and what must be asked about it."""
        wanted = [s for s in self._subscriptions if s.wants(change, self._table)]
        self._wanted[id(change)] = wanted
        for subscription in wanted:
            if self._needs_policies(change, subscription.claims.role):
                self._visibility.ask(subscription.claims, key_of(change, self._table))
        return wanted

    def _needs_policies(self, change: Change, role: str) -> bool:
        return self._table.has_rls and change.kind != "DELETE" and refusal(change, self._table, role) is None

    def _may_see(self, subscription: Subscription, change: Change) -> bool:
        if not self._needs_policies(change, subscription.claims.role):
            return True
        return self._visibility.sees(subscription.claims, key_of(change, self._table))

    def _data(self, change: Change, role: str, select: tuple[str, ...] | None) -> dict[str, Any]:
        error = refusal(change, self._table, role)
        if error is not None:
            return refused_data(change, error)
        return build_data(change, self._table, role, select, self._to_json)

    def _to_json(self, text: str | None, column: Column) -> Any:
        if text is not None and column.needs_postgres:
            return self._exotic[column.sql_type, text]
        return to_json(text, column.type_name)


def _frame(channel: Channel, change: Change, data: dict[str, Any], ids: list[int]) -> Frame:
    if channel.config.is_legacy:
        return encode(channel.version, channel.topic, change.kind, data)
    return encode(channel.version, channel.topic, "postgres_changes", {"data": data, "ids": ids})


async def _exotic_values(
    connection: Connection, table: Table, changes: list[Change]
) -> dict[tuple[str, str], Any]:
    """The JSON of values that only Postgres can write, by type and text."""
    found: dict[tuple[str, str], Any] = {}
    for column in table.columns:
        if not column.needs_postgres:
            continue
        texts = {row.get(column.name) for change in changes for row in (change.new, change.old)} - {None}
        query = sql.SQL("select v, to_jsonb(v::{}) from unnest(%s::text[]) u(v)").format(
            sql.SQL(column.sql_type.replace("%", "%%"))
        )
        cursor = await connection.execute(query, [list(texts)])
        found.update({(column.sql_type, text): value for text, value in await cursor.fetchall()})
    return found
