"""From one message to all members of a channel, encoding it once for each protocol version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .frames import BinaryBroadcast, Frame, Version, encode, encode_broadcast
from .presence import Diff, Metas, Roster

if TYPE_CHECKING:
    from .channel import Channel
    from .tenant import Usage


class Address(NamedTuple):
    """A channel: public and private ones of the same name are different channels."""

    topic: str
    private: bool


class Fanout:
    """All joined channels, by address. Every method is synchronous: nobody can slip in between."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._members: dict[Address, dict[Channel, None]] = {}
        self._rosters: dict[Address, Roster] = {}

    def __len__(self) -> int:
        return sum(len(members) for members in self._members.values())

    def add(self, channel: Channel) -> None:
        """Let a channel receive."""
        self._members.setdefault(channel.address, {})[channel] = None

    def remove(self, channel: Channel) -> None:
        """Stop a channel from receiving, and tell the others that its presence is gone."""
        members = self._members.get(channel.address, {})
        members.pop(channel, None)
        if not members:
            self._members.pop(channel.address, None)
        self.untrack(channel)

    def channels(self) -> list[Channel]:
        """Everybody."""
        return [channel for members in self._members.values() for channel in members]

    def broadcast(
        self,
        address: Address,
        broadcast: BinaryBroadcast | Any,
        *,
        sender: Channel | None = None,
        message_id: str | None = None,
    ) -> int:
        """Deliver a broadcast and return the number of receivers; `sender` is left out.

        Counts the message and each delivery against the tenant's rate. Over the rate, every receiver is
        thrown off its channel, as the real server does it.
        """
        members = self._members.get(address)
        frames: dict[Version, Frame | None] = {}
        receivers = []
        for channel in members or ():
            if channel is sender or not channel.receives_broadcast(message_id):
                continue
            version = channel.version
            if version not in frames:
                frames[version] = encode_broadcast(version, channel.topic, broadcast)
            frame = frames[version]
            if frame is not None:
                channel.push(frame)
                receivers.append(channel)
        if self._usage.count_events(1 + len(receivers)):
            for channel in receivers:
                channel.shut_down("Too many messages per second")
        return len(receivers)

    def presences(self, address: Address) -> Metas:
        """Who is present on a channel, as the payload of a presence_state."""
        roster = self._rosters.get(address)
        return roster.state() if roster else {}

    def track(self, channel: Channel, key: str, payload: dict[str, Any]) -> None:
        """Show a member's presence to all."""
        roster = self._rosters.setdefault(channel.address, Roster())
        self._tell(channel.address, roster.track(channel, key, payload))

    def untrack(self, channel: Channel) -> None:
        """Take a member's presence away."""
        roster = self._rosters.get(channel.address)
        diff = roster.untrack(channel) if roster else None
        if roster is not None and not roster:
            del self._rosters[channel.address]
        if diff:
            self._tell(channel.address, diff)

    def _tell(self, address: Address, diff: Diff) -> None:
        frames: dict[Version, Frame] = {}
        for channel in self._members.get(address, ()):
            if not channel.policies.presence_read:
                continue
            version = channel.version
            if version not in frames:
                frames[version] = encode(version, channel.topic, "presence_diff", diff.as_payload())
            channel.push(frames[version])
            self._usage.presence.add(self._usage.clock())
