"""Following a user's channel through the official Realtime client, as a browser would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bridge.events import FINAL_STATUSES
from tasks.demo.people import Person

Snapshot = dict[str, Any]
OnSnapshot = Callable[[Snapshot], None]
OnLine = Callable[[dict[str, Any]], None]


class Channel:
    """One user's channel; keeps each run's snapshot with the highest `seq`, and drops older ones."""

    def __init__(self, person: Person, name: str, on_snapshot: OnSnapshot, on_line: OnLine) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.messages = 0
        self._person, self._name = person, name
        self._on_snapshot, self._on_line = on_snapshot, on_line
        self._changed = asyncio.Event()

    async def join(self) -> None:
        """Join as the user; raises when Realtime refuses."""
        joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(state: Any, error: Exception | None) -> None:
            if joined.done():
                return
            if state == "SUBSCRIBED":
                joined.set_result(None)
            elif error is not None or state in ("CHANNEL_ERROR", "TIMED_OUT"):
                joined.set_exception(error or RuntimeError(f"joining {self._name}: {state}"))

        private: Any = {"config": {"private": True}}
        channel = self._person.client.channel(self._name, private)
        for event in ("progress", "state"):
            channel.on_broadcast(event, self._take)
        channel.on_broadcast("log", lambda message: self._on_line(message["payload"]))
        await channel.subscribe(told)
        await asyncio.wait_for(joined, 20)

    async def final(self, run_id: str) -> Snapshot:
        """The last snapshot of a run, once it is final."""
        while True:
            self._changed.clear()
            snapshot = self.snapshots.get(run_id)
            if snapshot is not None and snapshot["status"] in FINAL_STATUSES:
                return snapshot
            await self._changed.wait()

    def _take(self, message: Any) -> None:
        snapshot: Snapshot = message["payload"]
        self.messages += 1
        known = self.snapshots.get(snapshot["run_id"])
        if known is not None and known["seq"] >= snapshot["seq"]:
            return
        self.snapshots[snapshot["run_id"]] = snapshot
        self._on_snapshot(snapshot)
        self._changed.set()
