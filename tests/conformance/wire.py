"""A client of raw frames, sharing nothing with the server or the official clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

V1, V2 = "1.0.0", "2.0.0"
PATIENCE = 15


@dataclass
class Received:
    """A frame of the server; `raw` is what was on the wire, decoded from JSON when it was text."""

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None
    raw: Any

    @property
    def is_binary(self) -> bool:
        return isinstance(self.raw, bytes)


@dataclass
class Wire:
    """One socket. Frames that nobody waited for stay readable."""

    ws: ClientConnection
    vsn: str
    unread: list[Received] = field(default_factory=list)
    _refs: int = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, key: str, vsn: str = V1) -> AsyncIterator[Wire]:
        address = f"{url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={key}&vsn={vsn}"
        async with connect(address, max_size=None, max_queue=None) as ws:
            yield cls(ws, vsn)

    def new_ref(self) -> str:
        self._refs += 1
        return str(self._refs)

    async def send(
        self, topic: str, event: str, payload: Any, join_ref: str | None = None, ref: str | None = None
    ) -> str:
        ref = ref or self.new_ref()
        message: Any = [join_ref, ref, topic, event, payload]
        if self.vsn == V1:
            message = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            if join_ref is not None:
                message["join_ref"] = join_ref
        await self.ws.send(json.dumps(message))
        return ref

    async def push_binary(
        self, topic: str, event: str, payload: bytes, *, is_json: bool, join_ref: str, metadata: bytes = b""
    ) -> str:
        ref = self.new_ref()
        fields = [text.encode() for text in (join_ref, ref, topic, event)] + [metadata]
        head = bytes([3, *(len(part) for part in fields), int(is_json)])
        await self.ws.send(head + b"".join(fields) + payload)
        return ref

    async def first(self, wanted: Callable[[Received], bool], description: str) -> Received:
        """The first frame, unread or coming, that is wanted; it counts as read then, the others do not."""
        async with asyncio.timeout(PATIENCE):
            seen = 0
            while True:
                while seen < len(self.unread):
                    if wanted(self.unread[seen]):
                        return self.unread.pop(seen)
                    seen += 1
                try:
                    self.unread.append(_parse(self.vsn, await self.ws.recv()))
                except TimeoutError:
                    raise AssertionError(f"no {description}; got {[f.raw for f in self.unread]}") from None
        raise AssertionError(description)

    async def reply(self, ref: str) -> Received:
        return await self.first(lambda f: f.event == "phx_reply" and f.ref == ref, f"reply to {ref}")

    async def event(self, event: str) -> Received:
        return await self.first(lambda f: f.event == event, event)

    async def system(self) -> dict[str, Any]:
        return (await self.event("system")).payload

    async def join(self, topic: str, token: str | None = None, **config: Any) -> tuple[str, Any]:
        """Join `realtime:<topic>`; the join_ref and the reply's payload."""
        payload: dict[str, Any] = {"config": config}
        if token is not None:
            payload["access_token"] = token
        ref = self.new_ref()
        await self.send(f"realtime:{topic}", "phx_join", payload, join_ref=ref, ref=ref)
        return ref, (await self.reply(ref)).payload

    async def joined(self, topic: str, token: str | None = None, **config: Any) -> str:
        """Join and expect it to be allowed; the join_ref."""
        ref, payload = await self.join(topic, token, **config)
        assert payload["status"] == "ok", payload
        return ref

    async def broadcast(self, topic: str, event: str, payload: Any, join_ref: str | None = None) -> str:
        body = {"type": "broadcast", "event": event, "payload": payload}
        return await self.send(f"realtime:{topic}", "broadcast", body, join_ref)

    async def heard_nothing_of(self, event: str) -> None:
        """A heartbeat's answer comes after everything the server sent before it."""
        ref = await self.send("phoenix", "heartbeat", {})
        await self.reply(ref)
        assert [f.raw for f in self.unread if f.event == event] == []


def _parse(vsn: str, data: str | bytes) -> Received:
    if isinstance(data, bytes):
        return _parse_binary(data)
    raw = json.loads(data)
    if vsn == V1:
        return Received(raw["topic"], raw["event"], raw["payload"], raw["ref"], raw.get("join_ref"), raw)
    join_ref, ref, topic, event, payload = raw
    return Received(topic, event, payload, ref, join_ref, raw)


def _parse_binary(data: bytes) -> Received:
    assert data[0] == 4, data
    lengths, is_json = data[1:4], data[4] == 1
    parts, at = [], 5
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    topic, event, metadata = parts
    body = data[at:]
    payload: dict[str, Any] = {"event": event.decode(), "payload": json.loads(body) if is_json else body}
    if metadata:
        payload["meta"] = json.loads(metadata)
    return Received(topic.decode(), "broadcast", payload, None, None, data)
