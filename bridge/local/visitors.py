"""Who may talk to a server on loopback: programs, and pages of this machine, but no page of the internet.

Any web site may let its visitors' browsers call 127.0.0.1, by address or by a name that it points there
(DNS rebinding). The stack's keys are public knowledge, so they keep nobody out.
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web
from yarl import URL

# Docker's name for this machine, as a container sees it; nobody else can point it anywhere.
_OWN_NAMES = frozenset({"localhost", "host.docker.internal"})


def refusal(request: web.Request) -> web.Response | None:
    """The answer to a request that a foreign page made, else None."""
    if not _is_own(f"//{request.host}", addresses_too=True):
        return _refused(f"Host {request.host[:80]!r} is no name of this machine")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_own(origin, addresses_too=False):
        return _refused(f"pages of {origin[:80]!r} may not call this server; open yours on localhost")
    return None


def _is_own(url: str, *, addresses_too: bool) -> bool:
    """Whether a URL's host is this machine; a Host header with an address is none that DNS was asked for."""
    try:
        name = (URL(url).host or "").rstrip(".").lower()
    except ValueError:
        return False
    if name in _OWN_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return addresses_too or address.is_loopback


def _refused(message: str) -> web.Response:
    return web.json_response({"message": message}, status=403)
