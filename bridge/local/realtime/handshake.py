"""Opening a socket: who may, and the HTTP answer to who may not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from .frames import Version
from .socket import LARGEST_FRAME, Socket
from .tokens import TokenRefused

if TYPE_CHECKING:
    from .tenant import Tenant


class _Refused(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class Handshake:
    """Turns a request for `/websocket` into a Socket, and knows those that are open."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self.sockets: set[Socket] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The aiohttp handler; returns when the socket is closed."""
        version = Version.asked(request.query.get("vsn"))
        if version is None:
            return web.Response(status=403)
        try:
            token = self._admit(request)
        except _Refused as refusal:
            await asyncio.sleep(self._tenant.limits.error_delay.total_seconds())
            return web.json_response({"error": refusal.error}, status=refusal.status)
        ws = web.WebSocketResponse(timeout=1.0, compress=False, max_msg_size=LARGEST_FRAME)
        await ws.prepare(request)
        transport = request.transport
        abort = transport.abort if transport is not None else lambda: None
        socket = Socket(self._tenant, ws, version, token, abort)
        self.sockets.add(socket)
        try:
            await socket.serve()
        finally:
            self.sockets.discard(socket)
        return ws

    def _admit(self, request: web.Request) -> str:
        usage, limits = self._tenant.usage, self._tenant.limits
        if limits.suspended:
            raise _Refused(403, "Realtime was disabled for this tenant")
        key = request.headers.get("x-api-key") or request.query.get("apikey")
        if key is None:
            raise _Refused(401, "API key is missing")
        token = self._tenant.exchange_key(key)
        try:
            self._tenant.tokens.read(token)
        except TokenRefused as refusal:
            raise _Refused(401, refusal.handshake) from None
        if usage.has_too_many_users:
            raise _Refused(429, "Too many connected users")
        if usage.has_too_many_joins:
            raise _Refused(429, "Too many joins per second")
        return token
