"""A Redis of one test's own, which may be stopped, paused, and short of memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from bridge.local.ports import LOOPBACK, choose_port
from bridge.local.redis import find_redis_server
from tests.waiting import wait_until


@contextmanager
def redis_server(directory: Path) -> Iterator[redis.Redis]:
    """A client of a server that ends with the block; its address is in `connection_pool`."""
    port = choose_port()
    directory.mkdir()
    options = ["--port", str(port), "--bind", LOOPBACK, "--dir", str(directory), "--save", ""]
    process = subprocess.Popen([find_redis_server(), *options], stdout=subprocess.DEVNULL)
    client = redis.Redis.from_url(f"redis://{LOOPBACK}:{port}/0")

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        wait_until(answers, "Redis answers")
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def url_of(client: redis.Redis) -> str:
    """The address of the server that a client is connected to."""
    kwargs = client.connection_pool.connection_kwargs
    return f"redis://{kwargs['host']}:{kwargs['port']}/0"


def leave_no_room(client: redis.Redis) -> None:
    """From now on the server refuses whatever needs memory."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
