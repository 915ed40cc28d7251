"""Where importers may connect to: server addresses come from rows, so from outside.

Checked twice: the name before a connection is made, and the address of the peer once it stands and
before anything is sent, so that a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import httpx


class AddressRefused(httpx.RequestError):
    """The address is private, or the scheme is not https."""


class GuardedTransport(httpx.BaseTransport):
    """Lets requests out to public https addresses only, redirects included; `allow_private` lifts it."""

    def __init__(self, inner: httpx.BaseTransport, *, allow_private: bool = False) -> None:
        self._inner, self._allow_private = inner, allow_private

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self._allow_private:
            if request.url.scheme != "https":
                raise AddressRefused(f"{request.url.scheme} is not https", request=request)
            _refuse_private_host(request)
            request.extensions = {**request.extensions, "trace": _refuse_private_peer}
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def is_public(address: str) -> bool:
    """Whether an IP address lies in the public internet.

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("2606:4700::1111")
    (False, False, True)
    """
    ip: IPv4Address | IPv6Address = ip_address(address.split("%")[0])
    if isinstance(ip, IPv6Address):
        # Addresses that carry an IPv4 one reach wherever that one does.
        ip = ip.ipv4_mapped or ip.sixtofour or _nat64(ip) or ip
    return ip.is_global and not ip.is_multicast


def _nat64(ip: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(ip) & 0xFFFFFFFF) if int(ip) >> 32 == 0x64FF9B << 64 else None


def _refuse_private_host(request: httpx.Request) -> None:
    try:
        found = socket.getaddrinfo(request.url.host, request.url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"cannot resolve the host: {error}", request=request) from error
    if not all(is_public(str(entry[4][0])) for entry in found):
        raise AddressRefused("the host is not in the public internet", request=request)


def _refuse_private_peer(event: str, info: dict[str, Any]) -> None:
    if event != "connection.connect_tcp.complete":
        return
    stream = info["return_value"]
    if not is_public(stream.get_extra_info("server_addr")[0]):
        stream.close()
        raise AddressRefused("the peer is not in the public internet")
