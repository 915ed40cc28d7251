"""Realtime Broadcast in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bridge.messages import Message


class MemoryBroadcast:
    """Keeps what was broadcast, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, messages: Sequence[Message]) -> None:
        self.messages.extend(messages)

    def payloads(self, topic: str, event: str = "progress") -> list[dict[str, Any]]:
        """What a listener of `topic` was told as `event`."""
        heard = [each for each in self.messages if (each.topic, each.event) == (topic, event)]
        return [json.loads(each.payload) for each in heard]
