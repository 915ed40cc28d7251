"""Passes requests on to PostgREST, streaming both ways over kept connections to its unix socket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

# RFC 9110 7.6.1: these concern one connection. The upstream's own CORS answer gives way to the gateway's.
_NOT_PASSED_ON = frozenset(
    name.lower()
    for name in (
        "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer",
        "Transfer-Encoding", "Upgrade", "Host", "Content-Length",
    )
)  # fmt: skip
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Proxy:
    """A streaming reverse proxy to one upstream on a unix socket."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool of connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._upstream), limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
        )

    async def stop(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def forward(
        self, request: web.Request, path_and_query: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Send the request on with these headers and stream the answer back; 503 when nobody is there."""
        assert self._session is not None
        sent = CIMultiDict((name, value) for name, value in headers.items() if _passed_on(name))
        if request.content_length is not None and request.body_exists:
            sent["Content-Length"] = str(request.content_length)
        try:
            async with self._session.request(
                request.method,
                URL(f"http://postgrest{path_and_query}", encoded=True),
                headers=sent,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                return await _streamed(request, answer)
        except aiohttp.ClientConnectionError:
            return web.json_response({"message": "name resolution failed"}, status=503)


async def _streamed(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = CIMultiDict(
        (name, value)
        for name, value in answer.headers.items()
        if _passed_on(name) and not name.lower().startswith("access-control-")
    )
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _passed_on(name: str) -> bool:
    return name.lower() not in _NOT_PASSED_ON
