"""The one origin of the stack: refuses foreign pages, exchanges keys, routes to REST, Auth and Realtime."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from bridge.local import cors, visitors
from bridge.local.keys import Keys
from bridge.local.proxy import Proxy

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 1.0  # for requests under way; sockets are long-lived and never end by themselves
_REST, _AUTH, _REALTIME = "/rest/v1", "/auth/v1", "/realtime/v1"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mounted(Protocol):
    """A service that runs inside the gateway's process; its routes are relative to its prefix."""

    def routes(self) -> Iterable[web.AbstractRouteDef]: ...


class Gateway:
    """An aiohttp server on a listening socket; a service in `down` answers 503."""

    def __init__(self, keys: Keys, rest: Path, auth: Mounted, realtime: Mounted) -> None:
        self.down: set[str] = set()
        self._keys = keys
        self._proxy = Proxy(rest)
        # A lookup body or a batch insert is PostgREST's to judge; Realtime's own bound is 8 MB.
        self._app = web.Application(middlewares=[self._front], client_max_size=16 * 2**20)
        self._app.on_response_prepare.append(_open_to_all)
        self._app.router.add_route("*", _REST + "{path:(/.*)?}", self._to_rest)
        _mount(self._app, _AUTH, auth)
        _mount(self._app, _REALTIME, realtime)
        self._runner = web.AppRunner(
            self._app, access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_SECONDS
        )

    async def start(self, listener: socket.socket) -> None:
        """Serve on a socket that is bound already."""
        await self._proxy.start()
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Close every connection."""
        await self._runner.cleanup()
        await self._proxy.stop()

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if foreign := visitors.refusal(request):
            return foreign
        service = request.path.split("/")[1]
        if service in self.down:
            return web.json_response({"message": "name resolution failed"}, status=503)
        if cors.is_preflight(request):
            return cors.preflight(request)
        if service == "auth":
            return await handler(request.clone(headers=self._exchanged(request)))
        return await handler(request)

    async def _to_rest(self, request: web.Request) -> web.StreamResponse:
        key = _key(request) or _bearer(request)
        if not key:
            return _refused(
                "No API key found in request", "No `apikey` request header or url param was found."
            )
        if not self._keys.accepts(key):
            return _refused("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")
        return await self._proxy.forward(request, _rest_path(request), self._exchanged(request))

    def _exchanged(self, request: web.Request) -> CIMultiDict[str]:
        """Headers for a service that knows JWTs only; a user's token stays, else the key stands for one."""
        headers = CIMultiDict(request.headers)
        headers.pop("apikey", None)
        bearer, key = _bearer(request), _key(request)
        if bearer.startswith("sb_"):
            headers["Authorization"] = f"Bearer {self._keys.exchange(bearer)}"
        elif key and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self._keys.exchange(key)}"
        return headers


def _mount(app: web.Application, prefix: str, service: Mounted) -> None:
    for route in service.routes():
        if not isinstance(route, web.RouteDef):
            raise TypeError(f"{route!r} is not a plain route")
        app.add_routes([web.RouteDef(route.method, prefix + route.path, route.handler, route.kwargs)])


def _key(request: web.Request) -> str:
    return request.headers.get("apikey") or request.query.get("apikey", "")


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _rest_path(request: web.Request) -> str:
    """Path and query behind the prefix, byte for byte, but for the key, which would pass for a filter."""
    path = request.rel_url.raw_path.removeprefix(_REST) or "/"
    raw_query = request.rel_url.raw_query_string
    query = "&".join(pair for pair in raw_query.split("&") if pair and pair.partition("=")[0] != "apikey")
    return f"{path}?{query}" if query else path


def _refused(message: str, hint: str) -> web.Response:
    return web.json_response({"message": message, "hint": hint}, status=401)


async def _open_to_all(_request: web.Request, response: web.StreamResponse) -> None:
    if response.status != 101:
        cors.open_to_all(response.headers)
