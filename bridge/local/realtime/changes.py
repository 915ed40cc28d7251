"""postgres_changes: who subscribed to what, and the way of a batch of row changes to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import psycopg

from .audience import Audience, Subscription
from .bindings import BadBinding, Binding, binding_id, parse_binding
from .database import Connection, Database, DatabaseUnavailable
from .pgoutput import Change, Relation
from .subscribing import check_binding

if TYPE_CHECKING:
    from .channel import Channel
    from .joining import JoinConfig

SUBSCRIBED = "Subscribed to PostgreSQL"
EXTENSION = "postgres_changes"


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

    def renew(self) -> None:
        """Subscribe everybody again after changes may have been missed; clients are told as when joining."""
        for channel in list(self._subscriptions):
            channel.subscribe_to_changes()

    async def publish(self, connection: Connection, changes: Iterable[Change]) -> None:
        """Send changes, in their order, to those who subscribed and may see the rows.

        The questions to Postgres go over the given connection, which nobody else uses meanwhile.
        """
        batch = list(changes)
        by_table: dict[int, list[Change]] = {}
        for change in batch:
            by_table.setdefault(change.relation.oid, []).append(change)
        audiences: dict[int, Audience | None] = {}
        for oid, of_table in by_table.items():
            subscriptions = self._subscriptions_to(of_table[0].relation)
            if subscriptions:
                audiences[oid] = await Audience.gather(connection, subscriptions, of_table)
        for change in batch:
            audience = audiences.get(change.relation.oid)
            if audience is not None:
                audience.deliver(change)

    def _subscriptions_to(self, relation: Relation) -> list[Subscription]:
        return [
            subscription
            for subscriptions in self._subscriptions.values()
            for subscription in subscriptions
            if subscription.binding.covers(relation.schema, relation.table)
        ]

    async def _checked(self, channel: Channel, bindings: list[Binding]) -> list[Subscription]:
        claims = channel.claims
        async with self._database.connection() as connection:
            cursor = await connection.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
            row = await cursor.fetchone()
            since_lsn = int(row[0]) if row else 0
            checked = [await check_binding(connection, binding, claims.role) for binding in bindings]
        return [Subscription(channel, binding, claims, since_lsn) for binding in checked]
