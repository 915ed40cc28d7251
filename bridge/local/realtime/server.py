"""The Realtime stand-in as one object: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from aiohttp import web

from .authorization import Authorizer
from .changes import Changes
from .database import Database
from .fanout import Fanout
from .handshake import Handshake
from .limits import TenantLimits
from .replay import Replay
from .replication import Replication
from .rest import Rest
from .socket import SERVICE_RESTART
from .tenant import Tenant, Usage
from .tokens import TokenReader


class Realtime:
    """Supabase Realtime for one tenant, over the Postgres at `database_url`.

    The database needs `bridge/local/sql/realtime.sql`, and the URL must name a role that may replicate and
    become the roles of the tokens. `exchange_key` turns an API key (`sb_...`) into a JWT.

    Simpler than the real server, on purpose: tokens are signed with the secret (no JWKS), realtime.messages
    is one table without daily partitions and loses its old rows at the start, filters compare text by code
    point, presence differences go out one by one, and there is one node.

    >>> realtime = Realtime(database_url, jwt_secret)
    >>> await realtime.start()
    >>> app.router.add_routes(realtime.routes())
    """

    def __init__(
        self,
        database_url: str,
        jwt_secret: str,
        limits: TenantLimits | None = None,
        exchange_key: Callable[[str], str] = lambda key: key,
        poll_interval: timedelta = timedelta(milliseconds=50),
    ) -> None:
        limits = limits or TenantLimits()
        usage = Usage(limits)
        self._database = Database(database_url)
        fanout = Fanout(usage)
        self._changes = Changes(self._database)
        self._replication = Replication(database_url, fanout, self._changes, poll_interval)
        self._tenant = Tenant(
            limits,
            usage,
            TokenReader(jwt_secret),
            exchange_key,
            Authorizer(self._database),
            fanout,
            Replay(self._database),
            self._changes,
        )
        self._handshake = Handshake(self._tenant)
        self._rest = Rest(self._tenant)

    async def start(self) -> None:
        """Connect to Postgres and begin to follow its changes."""
        await self._database.open()
        await self._tenant.replay.forget_old()
        await self._replication.start()

    async def stop(self) -> None:
        """Close every socket with 1012, as a restarting server does, and leave Postgres."""
        await self._disconnect()
        await self._replication.stop()
        await self._database.close()

    async def reload(self, limits: TenantLimits) -> None:
        """Change the tenant's limits while running; as on the real server this disconnects everybody."""
        self._tenant.limits = self._tenant.usage.limits = limits
        for channel in self._tenant.fanout.channels():
            channel.send_system("Server requested disconnect", "ok")
        await self._disconnect()

    def routes(self) -> list[web.RouteDef]:
        """The routes, relative to the origin's `/realtime/v1`."""
        return [
            web.get("/websocket", self._handshake.handle),
            web.route("*", "/api/broadcast", self._rest.batch),
            web.route("*", "/api/broadcast/{topic}/events/{event}", self._rest.single),
        ]

    async def _disconnect(self) -> None:
        await asyncio.gather(*(socket.close(SERVICE_RESTART) for socket in list(self._handshake.sockets)))
