"""A Redis of its own over a unix socket, and the commands with a clock that the test sets."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from bridge.limits.scripts import LimitScripts
from bridge.local.redis import find_redis_server
from tests.integration.limits.desk import Desk
from tests.integration.limits.virtual import scripts_on
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="limits-") as folder:
        socket = Path(folder, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([find_redis_server(), *options], stdout=subprocess.DEVNULL)
        try:
            wait_until(socket.exists, "Redis listens")
            with Redis(unix_socket_path=str(socket)) as client:
                yield client
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def scripts(redis: Redis) -> LimitScripts:
    """The commands on an empty Redis whose clock stands at a time that the test sets."""
    redis.flushall()
    return scripts_on(redis)


@pytest.fixture
def desk(redis: Redis, scripts: LimitScripts) -> Desk:
    return Desk(redis, scripts)
