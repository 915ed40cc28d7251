"""One WebSocket: a loop that reads and acts on one message at a time, and a loop that writes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from aiohttp import ClientConnectionError, WSMsgType, web

from .admission import JoinRefused, admit
from .frames import Frame, Message, Version, decode, encode_reply

if TYPE_CHECKING:
    from .channel import Channel
    from .tenant import Tenant

logger = logging.getLogger(__name__)

LARGEST_FRAME = 5_000_000
#: A client that reads this much slower than it is written to is cut off.
MOST_BYTES_WAITING = 64_000_000

CLOSE_WITHIN = timedelta(seconds=3)

CLOSED_NORMALLY, GOING_AWAY, SERVICE_RESTART = 1000, 1001, 1012


class Socket:
    """A client's connection and the channels it has joined."""

    def __init__(
        self,
        tenant: Tenant,
        ws: web.WebSocketResponse,
        version: Version,
        token: str,
        abort: Callable[[], None],
    ) -> None:
        self.version, self.token = version, token
        self._tenant, self._ws, self._abort = tenant, ws, abort
        self._channels: dict[str, Channel] = {}
        self._waiting: deque[Frame] = deque()
        self._bytes_waiting = 0
        self._has_waiting = asyncio.Event()

    @property
    def channel_count(self) -> int:
        """How many channels the client has joined."""
        return len(self._channels)

    def channels(self) -> list[Channel]:
        """The channels that the client has joined."""
        return list(self._channels.values())

    def push(self, frame: Frame) -> None:
        """Send a frame after those that wait already."""
        self._waiting.append(frame)
        self._bytes_waiting += len(frame.data)
        self._has_waiting.set()
        if self._bytes_waiting > MOST_BYTES_WAITING:
            self._abort()

    def forget(self, channel: Channel) -> None:
        """Drop a channel that has ended."""
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]

    async def serve(self) -> None:
        """Until the client or the server closes the connection."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientConnectionError, ConnectionError):
                await writer
            self._tenant.usage.users.discard(self)
            for channel in self.channels():
                channel.drop()

    async def close(self, code: int) -> None:
        """Write what waits, then close; a client that reads nothing is cut off."""
        try:
            async with asyncio.timeout(CLOSE_WITHIN.total_seconds()):
                await self._drain()
                await self._ws.close(code=code)
        except (TimeoutError, ConnectionError, ClientConnectionError):
            self._abort()

    async def _read(self) -> None:
        idle_seconds = self._tenant.limits.idle_timeout.total_seconds()
        while True:
            try:
                received = await self._ws.receive(timeout=idle_seconds)
            except TimeoutError:
                return await self.close(CLOSED_NORMALLY)
            if received.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return None
            message = decode(self.version, received.data)
            if message is not None:
                await self._handle_or_crash(message, len(received.data))

    async def _write(self) -> None:
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            await self._drain()

    async def _drain(self) -> None:
        while self._waiting:
            frame = self._waiting.popleft()
            self._bytes_waiting -= len(frame.data)
            await self._ws.send_frame(frame.data, WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY)

    async def _handle_or_crash(self, message: Message, size: int) -> None:
        """A fault while handling a message ends its channel, not the socket, as on the real server."""
        try:
            await self._handle(message, size)
        except (ConnectionError, ClientConnectionError):
            raise
        except Exception:
            logger.exception("handling %r on a channel failed", message.event)
            channel = self._channels.get(message.topic)
            if channel is not None:
                channel.crash()

    async def _handle(self, message: Message, size: int) -> None:
        channel = self._channels.get(message.topic)
        if message.topic == "phoenix" and message.event == "heartbeat":
            self._reply(message)
        elif message.event == "phx_join" and message.topic.startswith("realtime:"):
            await self._join(message)
        elif channel is not None:
            await channel.handle(message, size)
        elif message.event == "phx_leave":
            self._reply(message)
        else:
            self._reply(message, "error", {"reason": "unmatched topic"})

    async def _join(self, message: Message) -> None:
        previous = self._channels.get(message.topic)
        if previous is not None:
            previous.close()
        try:
            channel, stored = await admit(self._tenant, self, message)
        except JoinRefused as refusal:
            return await self._refuse(message, refusal)
        self._channels[message.topic] = channel
        self._reply(message, response={"postgres_changes": self._tenant.changes.echo(channel.config)})
        channel.open()
        channel.send_replayed(stored)
        return None

    async def _refuse(self, message: Message, refusal: JoinRefused) -> None:
        await asyncio.sleep(self._tenant.limits.join_refusal_delay.total_seconds())
        self._reply(message, "error", {"reason": refusal.reason})
        if refusal.closes_socket:
            await self.close(GOING_AWAY)

    def _reply(self, to: Message, status: str = "ok", response: object = None) -> None:
        self.push(encode_reply(self.version, to, status, {} if response is None else response))
