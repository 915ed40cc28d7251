"""postgres_changes: who subscribed to what, and which row changes each of them may see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from .bindings import BadBinding, Binding, binding_id, parse_binding
from .catalog import Column, Table, load_table, visible_keys
from .database import Connection, Database, DatabaseUnavailable
from .filters import holds
from .frames import Frame, encode
from .pgoutput import Change
from .records import build_data, current_row, key_of, refusal, refused_data
from .subscribing import check_binding
from .tokens import Claims
from .values import to_json

if TYPE_CHECKING:
    from .channel import Channel
    from .joining import JoinConfig

SUBSCRIBED = "Subscribed to PostgreSQL"
EXTENSION = "postgres_changes"


@dataclass(frozen=True, eq=False)
class Subscription:
    """One binding of one channel, in the name of the claims it had when it subscribed."""

    channel: Channel
    binding: Binding
    claims: Claims
    since_lsn: int

    def wants(self, change: Change, table: Table) -> bool:
        """Whether a change passes the binding's filters; a filter on an unknown column lets nothing pass."""
        if change.lsn <= self.since_lsn:
            return False
        row = current_row(change)
        return all(
            condition.column in row
            and holds(condition, row[condition.column], table.type_of(condition.column))
            for condition in self.binding.filters
        )


class Changes:
    """All subscriptions. Row changes come in as decoded batches and go out as frames."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscriptions: dict[Channel, list[Subscription]] = {}
        self.streaming = asyncio.Event()

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody wants row changes."""
        return bool(self._subscriptions)

    async def ready(self) -> None:
        """Wait until changes are followed."""
        await self.streaming.wait()

    def echo(self, config: JoinConfig) -> list[dict[str, Any]]:
        """The join reply's list: each binding as it was asked for, with its id."""
        return [{**params, "id": binding_id(params)} for params in config.postgres_changes]

    async def subscribe(self, channel: Channel) -> None:
        """Subscribe a channel to its bindings, or again after a token refresh; tell it how that went."""
        try:
            bindings = [parse_binding(params) for params in channel.config.postgres_changes]
            subscriptions = await self._checked(channel, bindings)
        except BadBinding as error:
            return channel.send_system(str(error), "error", EXTENSION)
        except (DatabaseUnavailable, psycopg.Error) as error:
            return channel.send_system(f"Unable to subscribe: {error}", "error", EXTENSION)
        await self.streaming.wait()
        self._subscriptions[channel] = subscriptions
        return channel.send_system(SUBSCRIBED, "ok", EXTENSION)

    def unsubscribe(self, channel: Channel) -> None:
        """Forget a channel."""
        self._subscriptions.pop(channel, None)

    async def publish(self, connection: Connection, changes: Iterable[Change]) -> None:
        """Send changes, in their order, to those who subscribed and may see the rows.

        The questions to Postgres go over the given connection, which nobody else uses meanwhile.
        """
        by_relation: dict[int, list[Change]] = {}
        ordered = [change for change in changes if self._interested(change)]
        for change in ordered:
            by_relation.setdefault(change.relation.oid, []).append(change)
        audiences: dict[int, _Audience] = {}
        for oid, of_relation in by_relation.items():
            audience = await self._audience(connection, oid, of_relation)
            if audience is not None:
                audiences[oid] = audience
        for change in ordered:
            if change.relation.oid in audiences:
                audiences[change.relation.oid].deliver(change)

    async def _checked(self, channel: Channel, bindings: list[Binding]) -> list[Subscription]:
        async with self._database.connection() as connection:
            cursor = await connection.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
            row = await cursor.fetchone()
            since_lsn = int(row[0]) if row else 0
            return [
                Subscription(
                    channel,
                    await check_binding(connection, binding, channel.claims.role),
                    channel.claims,
                    since_lsn,
                )
                for binding in bindings
            ]

    def _interested(self, change: Change) -> list[Subscription]:
        relation = change.relation
        return [
            subscription
            for subscriptions in self._subscriptions.values()
            for subscription in subscriptions
            if subscription.binding.covers(change.kind, relation.schema, relation.table)
        ]

    async def _audience(self, connection: Connection, oid: int, changes: list[Change]) -> _Audience | None:
        """Who gets each of one table's changes."""
        interested = {id(change): self._interested(change) for change in changes}
        roles = {s.claims.role for subscriptions in interested.values() for s in subscriptions}
        table = await load_table(connection, oid, roles)
        if table is None:
            return None
        wanted = {id(c): [s for s in interested[id(c)] if s.wants(c, table)] for c in changes}
        changes = [change for change in changes if wanted[id(change)]]
        visible = await _visible(connection, table, changes, wanted)
        exotic = await _exotic_values(connection, table, changes)
        return _Audience(table, wanted, visible, exotic)


class _Audience:
    """One table's changes of one batch, with everything Postgres had to say about them."""

    def __init__(
        self,
        table: Table,
        wanted: dict[int, list[Subscription]],
        visible: dict[str, set[tuple[str | None, ...]]],
        exotic: dict[tuple[str, str], Any],
    ) -> None:
        self._table, self._wanted, self._visible, self._exotic = table, wanted, visible, exotic

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

    def _may_see(self, subscription: Subscription, change: Change) -> bool:
        role = subscription.claims.role
        if not _needs_policies(self._table, change, role):
            return True
        return key_of(change, self._table) in self._visible[subscription.claims.as_json]

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


def _needs_policies(table: Table, change: Change, role: str) -> bool:
    return table.has_rls and change.kind != "DELETE" and refusal(change, table, role) is None


async def _visible(
    connection: Connection, table: Table, changes: list[Change], wanted: dict[int, list[Subscription]]
) -> dict[str, set[tuple[str | None, ...]]]:
    """For each subscriber's claims, the keys of the rows that the policies let it see."""
    asked: dict[str, tuple[Claims, dict[tuple[str | None, ...], None]]] = {}
    for change in changes:
        for subscription in wanted[id(change)]:
            claims = subscription.claims
            if _needs_policies(table, change, claims.role):
                asked.setdefault(claims.as_json, (claims, {}))[1][key_of(change, table)] = None
    visible: dict[str, set[tuple[str | None, ...]]] = {}
    for as_json, (claims, keys) in asked.items():
        try:
            async with connection.transaction(force_rollback=True):
                visible[as_json] = await visible_keys(connection, table, claims, list(keys))
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            # A policy that fails shows nothing.
            visible[as_json] = set()
    return visible


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
