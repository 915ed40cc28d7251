"""A demo site in a thread, and a browser that looks at it, for tests of the page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from tasks.demo.web import DemoSite

STARTS_OF_A_USER = 3  # within a minute, on the sites of these tests

# Root may not use Chromium's sandbox; the rest keeps it from looking for its maker's servers.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@contextmanager
def serving(make_site: Callable[[], DemoSite]) -> Iterator[DemoSite]:
    """The site, served by an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="demo-site")
    thread.start()

    def run(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    site = make_site()
    try:
        run(site.start())
        yield site
    finally:
        run(site.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
