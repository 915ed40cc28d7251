"""Realtime Broadcast: one REST request for a batch of messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import httpx

from bridge.errors import BatchTooLarge, KeyRefused, MessagesRefused, SupabaseUnavailable
from bridge.exchange import exchange, retry_after
from bridge.messages import Message
from bridge.rest import headers_for, no_cookies
from bridge.settings import SupabaseSettings

BODY_LIMIT: Final = 1_000_000
"""Bytes of payloads in one request; Realtime refuses bodies above 8 MB."""

_FITS_ANYWHERE: Final = 16_000  # bytes of a payload; whoever refuses that as too large refuses everything


class RateExceeded(SupabaseUnavailable):
    """Realtime says that the project sends more messages than its plan allows."""


class Broadcaster(Protocol):
    """Where broadcasts go."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand over all the messages, in order.

        Raises:
            MessagesRefused, BatchTooLarge, RateExceeded, KeyRefused, SupabaseUnavailable: nothing was sent.
        """


class RealtimeBroadcaster:
    """`POST <url>/realtime/v1/api/broadcast`."""

    def __init__(
        self, settings: SupabaseSettings, private: bool = True, timeout: timedelta = timedelta(seconds=10)
    ) -> None:
        self._url = f"{settings.url}/realtime/v1/api/broadcast"
        self._private, self._within = private, timeout.total_seconds()
        self._client = httpx.AsyncClient(
            headers=headers_for(settings), timeout=self._within, cookies=no_cookies()
        )

    async def send(self, messages: Sequence[Message]) -> None:
        body = b'{"messages":[' + b",".join(self._encoded(message) for message in messages) + b"]}"
        response = await exchange(self._client, self._url, body, self._within)
        if response.status_code != 202:
            raise self._error_of(response, messages)

    async def close(self) -> None:
        await self._client.aclose()

    def _encoded(self, message: Message) -> bytes:
        envelope = {"topic": message.topic, "event": message.event, "private": self._private}
        return json.dumps(envelope).encode()[:-1] + b',"payload":' + message.payload + b"}"

    def _error_of(self, response: httpx.Response, messages: Sequence[Message]) -> Exception:
        status, count = response.status_code, len(messages)
        if status in (401, 403):
            return KeyRefused(
                f"{self._url} refuses the key ({status}); the bridge needs the project's secret key: "
                "set SUPABASE_SECRET_KEY"
            )
        if status == 413 and count == 1 and len(messages[0].payload) > _FITS_ANYWHERE:
            return MessagesRefused(frozenset({0}), "413")  # nothing smaller to try, and others wait behind it
        if status == 413 or (status == 429 and b"batch size" in response.content):
            return BatchTooLarge(f"Realtime takes no batch of this size now ({status})")
        if status == 429:
            reason = "Realtime says that the message rate of the plan is exceeded"
            return RateExceeded(reason, retry_after(response))
        if status == 422:
            positions = _bad_positions(response).intersection(range(count))
            if positions:
                return MessagesRefused(positions, "422")
        return SupabaseUnavailable(f"{self._url} answers {status}", retry_after(response))


def _bad_positions(response: httpx.Response) -> frozenset[int]:
    # {"errors": {"messages": [{}, {"payload": [...]}, ...]}}: an empty object stands for a good message.
    try:
        problems = json.loads(response.content)["errors"]["messages"]
        return frozenset(
            place for place, problem in enumerate(problems) if isinstance(problem, dict) and problem
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
