"""Free loopback ports."""

from __future__ import annotations

import random
import socket
import sys

from bridge.errors import LocalStackError

LOOPBACK = "127.0.0.1"
# Below the kernels' ephemeral ranges, so no outgoing connection takes a port between choice and use.
_CANDIDATES = range(20_000, 32_000)


def choose_port(preferred: int | None = None) -> int:
    """Return `preferred` when it is free, else any free port."""
    if preferred is not None and is_free(preferred):
        return preferred
    for port in random.sample(_CANDIDATES, 200):
        if is_free(port):
            return port
    raise LocalStackError("no free loopback port between 20000 and 32000; end programs that listen there")


def is_free(port: int) -> bool:
    """Whether nobody listens on `port` of the loopback address."""
    try:
        listen(port).close()
    except OSError:
        return False
    return True


def claim(port: int) -> socket.socket | None:
    """Keep other stacks from preferring `port` while the claim is open; None when another has claimed it.

    Between a server's choice of a port and its taking it, the port looks free to everybody. The name is
    one that the kernel forgets with the process; where there are none such (macOS), nobody claims anything.
    """
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            claimed.bind(f"\0taskcast-port-{port}")
    except OSError:
        claimed.close()
        return None
    return claimed


def listen(port: int) -> socket.socket:
    """Bind and return a socket, so that the port is ours before anything is served on it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
        # Without the backlog a second stack could bind the same port: SO_REUSEADDR only bars listeners.
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock
