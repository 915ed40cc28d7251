"""Where importers may connect to: server addresses come from rows, so from outside.

Checked twice: the name before a connection is made, and the address of the peer once it stands and
before anything is sent, so that a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpx

# All that is given out to the public; what lies outside (site-local, IPv4-compatible) Python calls global.
_GLOBAL_UNICAST = IPv6Network("2000::/3")


class AddressRefused(httpx.RequestError):
    """The address is private, or the scheme is not https."""


class GuardedTransport(httpx.BaseTransport):
    """Lets requests out to public https addresses only, redirects included; `allow_private` lifts it.

    `inner` keeps one connection at a time, and `hang_up` ends it from another thread.
    """

    def __init__(self, inner: httpx.BaseTransport, *, allow_private: bool = False) -> None:
        self._inner, self._allow_private = inner, allow_private
        self._line: socket.socket | None = None
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self._allow_private:
            if request.url.scheme != "https":
                raise AddressRefused(f"{request.url.scheme} is not https", request=request)
            _refuse_private_host(request)
        request.extensions = {**request.extensions, "trace": self._on_progress}
        return self._inner.handle_request(request)

    def hang_up(self) -> None:
        """End the connection under whoever reads from it: reading goes on to its end at once."""
        with self._lock:
            if self._line is not None:
                with suppress(OSError):  # it has ended already
                    self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._inner.close()
        self._keep(None)

    def _on_progress(self, event: str, info: dict[str, Any]) -> None:
        if event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        if not self._allow_private and not is_public(stream.get_extra_info("server_addr")[0]):
            stream.close()
            raise AddressRefused("the peer is not in the public internet")
        # A second handle: TLS takes the first one away, for as long as the peer lets a handshake last.
        self._keep(stream.get_extra_info("socket").dup())

    def _keep(self, line: socket.socket | None) -> None:
        with self._lock:
            old, self._line = self._line, line
        if old is not None:
            old.close()


def is_public(address: str) -> bool:
    """Whether an IP address lies in the public internet.

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("2606:4700::1111")
    (False, False, True)
    """
    ip: IPv4Address | IPv6Address = ip_address(address.split("%")[0])
    if isinstance(ip, IPv6Address):
        # Addresses that carry an IPv4 one reach wherever that one does.
        ip = ip.ipv4_mapped or ip.sixtofour or _nat64(ip) or ip
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
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
