"""A unix socket on which another process stops and starts parts, to rehearse outages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from bridge.errors import LocalStackError

Switch = Callable[[str], Awaitable[None]]


class Control:
    """`POST /parts/<name>/stop` and `/start`; answers 204, or 409 with the error's text."""

    def __init__(self, path: Path, stop_part: Switch, start_part: Switch) -> None:
        self.path = path
        self._switches = {"stop": stop_part, "start": start_part}
        app = web.Application()
        app.router.add_post("/parts/{name}/{verb:stop|start}", self._switch)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen; only the stack's own user may connect."""
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()
        self.path.chmod(0o600)

    async def stop(self) -> None:
        """Close the socket and remove its file."""
        await self._runner.cleanup()
        self.path.unlink(missing_ok=True)

    async def _switch(self, request: web.Request) -> web.Response:
        switch = self._switches[request.match_info["verb"]]
        try:
            await switch(request.match_info["name"])
        except LocalStackError as error:
            return web.json_response({"message": str(error)}, status=409)
        return web.Response(status=204)
