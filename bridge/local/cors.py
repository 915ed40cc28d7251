"""Cross-origin answers as the gateway of the Supabase CLI gives them: the gateway lets in whom it may."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"
_EXPOSED = (
    "Content-Encoding,Content-Location,Content-Range,Content-Type,Date,Location,Range-Unit,X-Total-Count,Link"
)
_DEFAULT_HEADERS = "authorization,apikey,content-type,prefer,x-client-info,accept-profile,content-profile"


def is_preflight(request: web.Request) -> bool:
    """Whether a browser asks what it may send."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight(request: web.Request) -> web.Response:
    """Allow what was asked for."""
    return web.Response(
        headers={
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": request.headers.get(
                "Access-Control-Request-Headers", _DEFAULT_HEADERS
            ),
            "Access-Control-Max-Age": "3600",
        }
    )


def open_to_all(headers: CIMultiDict[str]) -> None:
    """Add what a browser needs to read the answer."""
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
