"""The third ledger: what an official client sees on its user's channel, which reads the rows when it may have
missed something; the rules are those of our page, `bridge/web/src/follow.js`, its waits shorter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
from realtime import AsyncRealtimeClient

from bridge.local.running import RunningStack
from tests.acceptance.chaos.journal import now
from tests.acceptance.chaos.views import SHOWN, Views

CHECK_EVERY = 10.0
CHECK_EVERY_WHEN_AWAY = 1.0
REJOIN_AFTER = 0.5
PAGE = 1_000
_COLUMNS = ",".join(("run_id:id", *SHOWN))
_PRIVATE: Any = {"config": {"private": True, "broadcast": {"ack": False, "self": False}, "presence": None}}


class Client(Views):
    """One user's browser, as it were; runs until it is cancelled."""

    def __init__(self, stack: RunningStack, url: str, user: str, token: str) -> None:
        super().__init__()
        self.joins = 0
        self._stack, self._url, self._user, self._token = stack, url, user, token
        self._live = False
        self._due = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heal())
            while True:
                with suppress(Exception):  # the client raises bare ones, and those of its websocket library
                    await self._listen()
                await asyncio.sleep(REJOIN_AFTER)

    async def _listen(self) -> None:
        """One connection, until it is lost."""
        client = AsyncRealtimeClient(f"{self._url}/realtime/v1", self._stack.anon_key, auto_reconnect=False)
        away = asyncio.Event()
        try:
            await client.set_auth(self._token)
            channel = client.channel(f"chaos-{self._user}", _PRIVATE)
            for event in ("state", "progress"):
                channel.on_broadcast(event, self._take)
            await client.connect()
            await channel.subscribe(lambda state, _: self._on_state(state.value, away))
            await away.wait()
        finally:
            self._live = False
            with suppress(Exception):
                await client.close()

    def _on_state(self, state: str, away: asyncio.Event) -> None:
        self._live = state == "SUBSCRIBED"
        if self._live:
            self.joins += 1
            self._due.set()
        else:
            away.set()

    def _take(self, message: Any) -> None:
        payload = message["payload"]
        self.accept(payload["run_id"], payload)

    async def _heal(self) -> None:
        """Read the rows after each join and now and then: a live connection may have dropped a message."""
        checked = -CHECK_EVERY
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers(), timeout=10) as http:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), CHECK_EVERY_WHEN_AWAY)
                pause = CHECK_EVERY if self._live else CHECK_EVERY_WHEN_AWAY
                if not self._due.is_set() and (now() - checked < pause or not self.any_alive()):
                    continue
                self._due.clear()
                try:
                    checked = now()
                    await self._read(http)
                except (httpx.HTTPError, ValueError):
                    self._due.set()
                    await asyncio.sleep(CHECK_EVERY_WHEN_AWAY)

    async def _read(self, http: httpx.AsyncClient) -> None:
        for offset in range(0, 100 * PAGE, PAGE):
            query: dict[str, str | int] = {
                "select": _COLUMNS,
                "order": "created_at.desc",
                "limit": PAGE,
                "offset": offset,
            }
            answer = await http.get("/rest/v1/processing_jobs", params=query)
            rows = answer.raise_for_status().json()
            for row in rows:
                self.accept(row["run_id"], row)
            if len(rows) < PAGE:
                return

    def _headers(self) -> dict[str, str]:
        return {"apikey": self._stack.anon_key, "Authorization": f"Bearer {self._token}"}


class Clients:
    """The clients of several users in a thread of their own."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._main = self._loop.create_task(self._all())
        self._thread.start()

    def end(self) -> None:
        if self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join()

    def _run(self) -> None:
        assert self._main is not None
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for client in self.clients:
                group.create_task(client.run())
