"""Refused requests, in GoTrue's words and JSON shapes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from aiohttp import web
from psycopg_pool import PoolTimeout

# Clients that name this version get the error code as `code`; others get the HTTP status there.
_NEW_SHAPE_SINCE = "2024-01-01"
_VERSION_HEADER = "X-Supabase-Api-Version"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """A request that cannot be granted: HTTP status, GoTrue's error code, and the sentence for people."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.more = status, code, message, more


def explained(handler: Handler) -> Handler:
    """Turn what a handler raises into GoTrue's answers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _answer(request, refusal)
        except (psycopg.OperationalError, PoolTimeout):
            return _answer(request, Refusal(500, "unexpected_failure", "Database error"))

    return handle


def _answer(request: web.Request, refusal: Refusal) -> web.Response:
    version = request.headers.get(_VERSION_HEADER, "")
    if version >= _NEW_SHAPE_SINCE:
        body: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
        headers = {_VERSION_HEADER: _NEW_SHAPE_SINCE}
    else:
        body = {"code": refusal.status, "error_code": refusal.code, "msg": refusal.message}
        headers = {}
    return web.json_response(body | refusal.more, status=refusal.status, headers=headers)
