"""A proxy to a Redis that a test makes slow, cuts, or has swallow answers."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from bridge.local.ports import LOOPBACK


class Proxy:
    """Carries bytes both ways; what it does to them can be changed at any time.

    Attributes:
        delay: seconds that each piece waits, on its way to Redis and back.
        frozen: nothing passes, and no connection is closed, as if a cable was pulled.
        swallow: once something with these bytes is sent to Redis, its answer is lost with the connection.
    """

    def __init__(self, port: int) -> None:
        self._to = (LOOPBACK, port)
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"redis://{LOOPBACK}:{self._listener.getsockname()[1]}/0"
        self.delay = 0.0
        self.refuses = False
        self.frozen = False
        self.swallow: list[bytes] = []
        self.swallowed = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ports: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def ports(self) -> set[int]:
        """The ports that Redis has seen connections of its come from."""
        return set(self._ports)

    def cut(self) -> None:
        """Close all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    _close(client)
                    continue
                try:
                    server = socket.create_connection(self._to)
                except OSError:  # nobody listens there at present
                    _close(client)
                    continue
                self._pairs.append((client, server))
                self._ports.append(server.getsockname()[1])
                doomed = threading.Event()
                threading.Thread(target=self._there, args=(client, server, doomed), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client, doomed), daemon=True).start()

    def _there(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                self._wait()
                if self.swallow and self.swallow[0] in piece:
                    self.swallow.pop(0)
                    doomed.set()
                server.sendall(piece)
        _close(client, server)

    def _back(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while piece := server.recv(65536):
                self._wait()
                if doomed.is_set():
                    self.swallowed += 1
                    break
                client.sendall(piece)
        _close(client, server)

    def _wait(self) -> None:
        if self.delay:
            time.sleep(self.delay)
        while self.frozen:
            time.sleep(0.02)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
