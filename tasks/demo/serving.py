"""Runs an aiohttp application on loopback in a thread, beside code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def served(application: web.Application, port: int = 0) -> Iterator[str]:
    """Serves the application while the block runs; gives its origin, such as `http://127.0.0.1:40123`."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(application, port, started)), name="demo-http", daemon=True
    )
    thread.start()
    loop, stop, bound = started.result(timeout=30)
    try:
        yield f"http://127.0.0.1:{bound}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)


async def _serve(
    application: web.Application,
    port: int,
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]],
) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
    except BaseException as error:
        await runner.cleanup()
        started.set_exception(error)
        return
    stop = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), stop, runner.addresses[0][1]))
    await stop.wait()
    for _ in range(5):
        # A connection that arrived in this instant is taken up first: closing the listener while
        # asyncio is still accepting it would leak its socket.
        await asyncio.sleep(0)
    await runner.cleanup()
