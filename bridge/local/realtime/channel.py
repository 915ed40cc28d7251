"""One joined channel of one socket: what its client sends on it, and how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .authorization import BROADCAST, PRESENCE, Policies
from .database import DatabaseUnavailable
from .fanout import Address
from .frames import BinaryBroadcast, Frame, Message, Version, dump, encode, encode_broadcast, encode_reply
from .limits import CallWindow
from .replay import StoredMessage
from .tokens import Claims, TokenRefused, expired

if TYPE_CHECKING:
    from .joining import JoinConfig
    from .socket import Socket
    from .tenant import Tenant

NO_DATABASE = "Realtime was unable to connect to the project database"


def no_permission(topic: str) -> str:
    """The words for a private channel that a client may not read."""
    return f"You do not have permissions to read from this Channel topic: {topic}"


class Channel:
    """A member of a topic. Its socket feeds it one message at a time."""

    def __init__(
        self,
        tenant: Tenant,
        socket: Socket,
        join: Message,
        config: JoinConfig,
        token: str,
        claims: Claims,
        policies: Policies,
    ) -> None:
        self.topic = join.topic
        self.name = join.topic.removeprefix("realtime:")
        self.address = Address(self.name, config.private)
        self.version: Version = socket.version
        self.join_ref = join.join_ref
        self.config, self.claims, self.policies = config, claims, policies
        self.is_closed = False
        self._tenant, self._socket, self._token = tenant, socket, token
        self._presence_calls = CallWindow(tenant.limits.presence_calls, tenant.limits.presence_window)
        self._presence_payload: dict[str, Any] | None = None
        self._replayed: frozenset[str] = frozenset()
        self._subscribing: asyncio.Task[None] | None = None
        self._waiting_for_replication: asyncio.Task[None] | None = None
        self._expiry = self._watch_expiry()

    # What the server sends.

    def push(self, frame: Frame) -> None:
        """Send a frame that is encoded already."""
        self._socket.push(frame)

    def send(self, event: str, payload: Any) -> None:
        """Send an event on this channel."""
        self.push(encode(self.version, self.topic, event, payload, None, self.join_ref))

    def send_system(self, message: str, status: str, extension: str = "system") -> None:
        """Tell the client how the server sees its channel."""
        self.send(
            "system", {"message": message, "status": status, "extension": extension, "channel": self.name}
        )

    def send_replayed(self, messages: list[StoredMessage]) -> None:
        """Send what the database sent before this client joined; the same messages do not come twice."""
        self._replayed = frozenset(message.id for message in messages)
        for message in messages:
            meta = {"replayed": True, "id": message.id}
            broadcast: Any = {
                "payload": message.payload,
                "event": message.event,
                "type": "broadcast",
                "meta": meta,
            }
            if message.binary_payload is not None:
                broadcast = BinaryBroadcast(message.event, message.binary_payload, False, meta)
            frame = encode_broadcast(self.version, self.topic, broadcast)
            if frame is not None:
                self.push(frame)

    def receives_broadcast(self, message_id: str | None) -> bool:
        """Whether a broadcast is for this member."""
        return bool(self.policies.broadcast_read) and (message_id is None or message_id not in self._replayed)

    # How it begins and ends.

    def open(self) -> None:
        """Begin to receive; the join has been answered."""
        self._tenant.fanout.add(self)
        if self.config.presence_enabled and self.policies.presence_read:
            self.send("presence_state", self._tenant.fanout.presences(self.address))
        self.subscribe_to_changes()
        if self.config.replication_ready:
            self._waiting_for_replication = asyncio.create_task(self._tell_replication_ready())

    def shut_down(self, message: str) -> None:
        """End the channel for a reason the client is told; its socket stays open."""
        if not self.is_closed:
            self.send_system(message, "error")
            self.close()

    def close(self) -> None:
        """End the channel and say so."""
        if not self.is_closed:
            self.push(encode(self.version, self.topic, "phx_close", {}, self.join_ref, self.join_ref))
            self.drop()

    def crash(self) -> None:
        """End the channel after a fault of the server's own; clients join again by themselves."""
        if not self.is_closed:
            reason = {"reason": "channel_crash"}
            self.push(encode(self.version, self.topic, "phx_error", reason, None, self.join_ref))
            self.drop()

    def drop(self) -> None:
        """End the channel in silence, as when its socket is gone."""
        self.is_closed = True
        self._expiry.cancel()
        for task in (self._subscribing, self._waiting_for_replication):
            if task is not None:
                task.cancel()
        self._tenant.changes.unsubscribe(self)
        self._tenant.fanout.remove(self)
        self._socket.forget(self)

    # What the client sends.

    async def handle(self, message: Message, size: int) -> None:
        """Act on one message of the client; `size` is its frame's, in bytes."""
        if message.event == "broadcast":
            await self._broadcast(message, size)
        elif message.event == "presence":
            await self._presence(message)
        elif message.event == "access_token" and isinstance(message.payload, dict):
            await self._access_token(message.payload.get("access_token"))
        elif message.event == "phx_leave":
            self.reply(message)
            self.close()
        else:
            self._tenant.usage.count_events(1)

    def reply(self, to: Message, status: str = "ok", response: Any = None) -> None:
        """Answer one message."""
        self.push(encode_reply(self.version, to, status, {} if response is None else response))

    async def _broadcast(self, message: Message, size: int) -> None:
        if not isinstance(message.payload, (dict, BinaryBroadcast)) or not await self._may_write(BROADCAST):
            return
        if self._is_too_large(message.payload, size):
            self._tenant.usage.count_events(1)
            if self.config.ack:
                self.reply(message, "error", "payload_size_exceeded")
            return
        payload = message.payload
        if isinstance(payload, BinaryBroadcast):
            payload = BinaryBroadcast(payload.event, payload.payload, payload.is_json)
        self._tenant.fanout.broadcast(self.address, payload, sender=None if self.config.own else self)
        if self.config.ack:
            self.reply(message)

    def _is_too_large(self, payload: dict[str, Any] | BinaryBroadcast, frame_size: int) -> bool:
        limit = self._tenant.limits.payload_bytes
        if frame_size <= limit:
            return False
        return len(payload.payload if isinstance(payload, BinaryBroadcast) else dump(payload)) > limit

    async def _may_write(self, extension: str) -> bool:
        """Ask Postgres on the first write with this token, and remember the answer."""
        field = f"{extension}_write"
        known: bool | None = getattr(self.policies, field)
        if known is None:
            try:
                answer = await self._tenant.authorizer.writes(self.name, self.claims, [extension])
            except DatabaseUnavailable:
                return False
            known = answer[extension]
            setattr(self.policies, field, known)
        # The token may have expired while Postgres was asked.
        return known and not self.is_closed

    async def _presence(self, message: Message) -> None:
        payload = message.payload
        if not isinstance(payload, dict) or not isinstance(payload.get("event"), str):
            return self.reply(message)
        if not self._presence_calls.take(time.monotonic()):
            return self.shut_down("Client presence rate limit exceeded")
        event = payload["event"].lower()
        if event == "untrack":
            self._presence_payload = None
            self._tenant.fanout.untrack(self)
            return self.reply(message)
        if event != "track" or not await self._may_track():
            return self.reply(message, "error")
        return self._track(message, payload.get("payload", {}))

    async def _may_track(self) -> bool:
        """A private channel joined without presence learns now whether it may read the others."""
        if self.policies.presence_read is None:
            try:
                answer = await self._tenant.authorizer.reads(self.name, self.claims, [PRESENCE])
            except DatabaseUnavailable:
                return False
            self.policies.presence_read = answer[PRESENCE]
        return await self._may_write(PRESENCE)

    def _track(self, message: Message, shown: Any) -> None:
        if not isinstance(shown, dict):
            reason = "Presence track payload must be a map"
            return self.reply(message, "error", {"reason": reason})
        if len(dump(shown)) > self._tenant.limits.payload_bytes:
            return self.shut_down("Track message size exceeded")
        if shown != self._presence_payload:
            if self._tenant.usage.has_too_many_presences:
                return self.shut_down("Too many presence messages per second")
            self._tenant.usage.presence.add(time.monotonic())
            self._presence_payload = shown
            self.reply(message)
            return self._tenant.fanout.track(self, self.config.presence_key, shown)
        return self.reply(message)

    async def _access_token(self, token: Any) -> None:
        if not isinstance(token, str) or token == self._token or token.startswith("sb_"):
            return None
        before = self.policies
        try:
            claims = self._tenant.tokens.read(token)
            policies = await self._policies_with(claims)
        except TokenRefused as refusal:
            return self.shut_down(refusal.channel)
        except DatabaseUnavailable:
            return self.shut_down(NO_DATABASE)
        if self.is_closed:
            return None
        if not policies.may_join:
            return self.shut_down(no_permission(self.name))
        if _is_revoked(before, policies):
            return self.shut_down(
                f"You no longer have permission to read from this Channel topic: {self.name}"
            )
        self._token, self.claims, self.policies = token, claims, policies
        self._expiry.cancel()
        self._expiry = self._watch_expiry()
        self.subscribe_to_changes()
        return None

    async def _policies_with(self, claims: Claims) -> Policies:
        if not self.config.private:
            return Policies.everything()
        extensions = [BROADCAST, PRESENCE] if self.policies.presence_read is not None else [BROADCAST]
        answer = await self._tenant.authorizer.reads(self.name, claims, extensions)
        return Policies(answer[BROADCAST], answer.get(PRESENCE))

    # Its clocks.

    def _watch_expiry(self) -> asyncio.TimerHandle:
        remaining = self.claims.expires_at - time.time()
        return asyncio.get_running_loop().call_later(remaining, lambda: self.shut_down(expired(0).channel))

    async def _tell_replication_ready(self) -> None:
        await self._tenant.changes.ready()
        self.send_system("Replication connection established", "ok")

    def subscribe_to_changes(self) -> None:
        """Subscribe to row changes with the claims of now; an attempt with older claims is given up."""
        if not self.config.postgres_changes:
            return
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._subscribing = asyncio.create_task(self._tenant.changes.subscribe(self))


def _is_revoked(before: Policies, now: Policies) -> bool:
    return any(
        had is True and has is False
        for had, has in (
            (before.broadcast_read, now.broadcast_read),
            (before.presence_read, now.presence_read),
        )
    )
