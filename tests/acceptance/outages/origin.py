"""A project's origin that a test takes away, in parts or whole, and gives back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import aiohttp
from aiohttp import web

from bridge.local.ports import LOOPBACK

T = TypeVar("T")
Kind = Literal["refuse", "hang", "slow", "drip", "status", "page", "cut"]

REST, REALTIME = "/rest/v1", "/realtime/v1"
_PAGE = "<html><body>Please sign in to the network.</body></html>"
_GIVEN_UP = (
    0.05  # seconds in which it shows, after a stall of ours, that nobody waits for the answer any more
)
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "host"})


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    refuse: the connection is closed unanswered; hang: never answered; slow: answered late; drip: an answer
    without end, a byte now and then; status: an error; page: somebody's HTML with 200; cut: it is done, and
    the answer lost in its middle.
    """

    kind: Kind
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.5
    above: int = -1  # bytes of a body; smaller requests pass

    def __str__(self) -> str:
        return "-".join([self.kind, *([str(self.status)] if self.kind == "status" else []), *self.headers])


class Origin:
    """Passes requests on to a stack; `url` is what a bridge is given for its project."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._faults: dict[str, Fault] = {}
        self._over = asyncio.Event()
        self.asked: Counter[str] = Counter()  # requests below a prefix while a fault was there
        self.times: dict[str, list[float]] = defaultdict(list)  # of each, by the last part of its path
        self.passed: list[tuple[str, int]] = []  # path and bytes of what was passed on
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = self._call(self._start())

    @contextmanager
    def away(self, fault: Fault, *prefixes: str) -> Iterator[None]:
        """An outage for as long as the block runs; who hangs is let go at its end, unanswered."""
        self.asked.clear()
        self.times.clear()
        self._call(self._set(dict.fromkeys(prefixes, fault)))
        try:
            yield
        finally:
            self._call(self._set({}))

    def come_back(self) -> None:
        """End an outage before its block does."""
        self._call(self._set({}))

    def close(self) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        return f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        self._over.set()
        await self._runner.cleanup()
        await self._session.close()

    async def _set(self, faults: dict[str, Fault]) -> None:
        self._over.set()
        self._over = asyncio.Event()
        self._faults = faults

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        for prefix, fault in self._faults.items():
            if request.path.startswith(prefix) and len(body) > fault.above:
                await asyncio.sleep(_GIVEN_UP)
                self.asked[prefix] += 1
                self.times[request.path.rpartition("/")[2]].append(time.monotonic())
                return await self._FAULTS[fault.kind](self, request, body, fault)
        return await self._pass(request, body)

    async def _pass(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = self._upstream + request.path_qs
        self.passed.append((request.path, len(body)))
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def _refuse(self, request: web.Request, _body: bytes, _fault: Fault) -> web.StreamResponse:
        return _hung_up(request)

    async def _hang(self, request: web.Request, _body: bytes, _fault: Fault) -> web.StreamResponse:
        await self._over.wait()
        return _hung_up(request)

    async def _slow(self, request: web.Request, body: bytes, fault: Fault) -> web.StreamResponse:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), fault.delay)
        return await self._pass(request, body)

    async def _drip(self, request: web.Request, _body: bytes, _fault: Fault) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not self._over.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return _hung_up(request)

    async def _status(self, _request: web.Request, _body: bytes, fault: Fault) -> web.StreamResponse:
        return web.json_response({"message": "away"}, status=fault.status, headers=fault.headers)

    async def _page(self, _request: web.Request, _body: bytes, _fault: Fault) -> web.StreamResponse:
        return web.Response(text=_PAGE, content_type="text/html")

    async def _cut(self, request: web.Request, body: bytes, _fault: Fault) -> web.StreamResponse:
        answer = await self._pass(request, body)
        content = answer.body if isinstance(answer.body, bytes) else b""
        response = web.StreamResponse(status=answer.status)
        response.content_length = len(content) + 1
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        return _hung_up(request)

    _FAULTS: dict[Kind, Callable[[Origin, web.Request, bytes, Fault], Coroutine[Any, Any, Any]]] = {  # noqa: RUF012
        "refuse": _refuse,
        "hang": _hang,
        "slow": _slow,
        "drip": _drip,
        "status": _status,
        "page": _page,
        "cut": _cut,
    }


def _hung_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.StreamResponse()
