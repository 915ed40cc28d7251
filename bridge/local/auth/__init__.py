"""A minimal Auth: enough of GoTrue for anonymous and password sign-in with the official clients."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from bridge.local.keys import Keys


class Auth:
    """Serves below /auth/v1."""

    def __init__(self, database_url: str, keys: Keys) -> None:
        self._database_url, self._keys = database_url, keys

    async def start(self) -> None:
        """Open the pool."""

    async def stop(self) -> None:
        """Close the pool."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The routes, relative to /auth/v1."""
        return [web.get("/health", self._health)]

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"name": "GoTrue", "description": "taskcast local stand-in"})
