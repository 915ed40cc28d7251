"""The demo's web server: the page, where its Supabase is, and one call that starts an import."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
from aiohttp import web

from bridge.local import visitors
from bridge.web import page_files

Seed = Callable[[str], Awaitable[None]]
"""Gives a user the demo's accounts; called before every import, so it must bear repetition."""

Start = Callable[[str, bool], str]
"""Dispatches an import of this user, in parallel or not, and returns the run's id; may block."""

_log = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"
_LARGEST_BODY = 1_024


class Pace:
    """At most `starts` starts within `per`, of one user and, twenty times as many, of all together."""

    def __init__(self, starts: int, per: timedelta) -> None:
        self._starts, self._per = starts, per.total_seconds()
        self._of_all: deque[tuple[float, str]] = deque()

    def seconds_to_wait(self, user_id: str) -> float:
        """0 when the user may start now, which then counts as a start."""
        now = time.monotonic()
        while self._of_all and self._of_all[0][0] <= now - self._per:
            self._of_all.popleft()
        own = [started for started, user in self._of_all if user == user_id]
        if len(own) >= self._starts:
            return own[0] + self._per - now
        if len(self._of_all) >= 20 * self._starts:
            return self._of_all[0][0] + self._per - now
        self._of_all.append((now, user_id))
        return 0.0


class Refusal(Exception):
    """An answer that is not what was asked for: one line for the person at the page."""

    def __init__(self, status: int, line: str, retry_after: float = 0.0) -> None:
        super().__init__(line)
        self.status, self.retry_after = status, retry_after


class DemoSite:
    """Serves the page on a free port of the loopback interface.

    >>> site = DemoSite(stack.url, stack.anon_key, seed, lambda user, parallel: import_socials.delay(user).id)
    >>> await site.start()
    >>> site.url
    'http://127.0.0.1:43210'
    """

    def __init__(
        self,
        supabase_url: str,
        anon_key: str,
        seed: Seed,
        start: Start,
        starts_of_a_user: int = 10,
        per: timedelta = timedelta(minutes=1),
    ) -> None:
        self.url = ""
        self._supabase_url, self._anon_key = supabase_url, anon_key
        self._seed, self._start = seed, start
        self._pace = Pace(starts_of_a_user, per)
        self._client = httpx.AsyncClient(timeout=10)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; raises PageNotBuilt when the page has not been built."""
        app = web.Application(middlewares=[_explained], client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(self._protect)
        for name, content in page_files().items():
            app.router.add_get(f"/{name}", _file(name, content))
            if name == "index.html":
                app.router.add_get("/", _file(name, content))
        app.router.add_get("/config.json", self._config)
        app.router.add_post("/api/import", self._import)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _LOOPBACK, 0)
        await site.start()
        self.url = f"http://{_LOOPBACK}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _config(self, _request: web.Request) -> web.Response:
        return web.json_response({"supabaseUrl": self._supabase_url, "anonKey": self._anon_key})

    async def _import(self, request: web.Request) -> web.Response:
        user_id = await self._user_of(request)
        parallel = await _parallel_of(request)
        if wait := self._pace.seconds_to_wait(user_id):
            raise Refusal(429, f"Too many imports at once; try again in {wait:.0f} s.", wait)
        await self._seed(user_id)
        run_id = await asyncio.to_thread(self._start, user_id, parallel)
        return web.json_response({"id": run_id}, status=202)

    async def _user_of(self, request: web.Request) -> str:
        """The user whose token came with the request, as Supabase Auth says."""
        authorization = request.headers.get("Authorization", "")
        if not authorization.startswith("Bearer "):
            raise Refusal(401, "Sign in first: the request has no `Authorization: Bearer` header.")
        headers = {"apikey": self._anon_key, "Authorization": authorization}
        try:
            answer = await self._client.get(f"{self._supabase_url}/auth/v1/user", headers=headers)
        except httpx.HTTPError as error:
            raise Refusal(503, "Supabase Auth does not answer; try again.") from error
        if answer.status_code >= 500:
            raise Refusal(503, "Supabase Auth does not answer; try again.")
        if not answer.is_success:
            raise Refusal(401, "Your session is not valid any more; reload the page.")
        return str(answer.json()["id"])

    async def _protect(self, _request: web.Request, response: web.StreamResponse) -> None:
        supabase = urlsplit(self._supabase_url)
        socket = f"{'wss' if supabase.scheme == 'https' else 'ws'}://{supabase.netloc}"
        response.headers.update(
            {
                "Content-Security-Policy": (
                    f"default-src 'self'; connect-src 'self' {supabase.scheme}://{supabase.netloc} {socket}; "
                    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                ),
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
            }
        )


async def _parallel_of(request: web.Request) -> bool:
    try:
        body = await request.json()
    except (ValueError, LookupError):
        raise Refusal(400, 'The body is not JSON; send {"parallel": true} or {"parallel": false}.') from None
    parallel = body.get("parallel") if isinstance(body, dict) else None
    if not isinstance(parallel, bool):
        raise Refusal(400, f"parallel={parallel!r:.80}: must be true or false.")
    return parallel


def _file(name: str, content: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

    async def send(_request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return send


@web.middleware
async def _explained(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure becomes one line of JSON; what went wrong inside stands in the log alone."""
    if foreign := visitors.refusal(request):
        return foreign
    try:
        return await handler(request)
    except Refusal as refusal:
        headers = {"Retry-After": f"{refusal.retry_after:.0f}"} if refusal.retry_after else {}
        return web.json_response({"error": str(refusal)}, status=refusal.status, headers=headers)
    except web.HTTPException as error:
        return web.json_response({"error": f"{error.reason}."}, status=error.status)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "The import could not be started; try again."}, status=503)
