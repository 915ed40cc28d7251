"""One request to Supabase and its whole answer, bounded in time and in bytes whatever the other side does."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from bridge.errors import SupabaseUnavailable, TooMuchAtOnce

ANSWER_LIMIT: Final = 64_000_000
"""Bytes of an answer; what is longer is given up, not kept."""

LONGEST_ASKED: Final = 300.0
"""Seconds that a `Retry-After` is obeyed at most."""


async def exchange(client: httpx.AsyncClient, url: str, body: bytes, within: float) -> httpx.Response:
    """POST the body and read what is answered within so many seconds, from connecting to the last byte.

    Raises:
        SupabaseUnavailable: no answer, or only a part of one.
        TooMuchAtOnce: it took too long, or the answer is too long; a smaller request may pass.
    """
    try:
        async with asyncio.timeout(within), client.stream("POST", url, content=body) as streamed:
            pieces, room = [], ANSWER_LIMIT
            async for piece in streamed.aiter_bytes():
                pieces.append(piece)
                room -= len(piece)
                if room < 0:
                    raise TooMuchAtOnce(f"{_place(url)} answers with more than {ANSWER_LIMIT} bytes")
    except (httpx.ReadTimeout, httpx.WriteTimeout, TimeoutError) as error:
        raise TooMuchAtOnce(f"no answer from {_place(url)} within {within:g} s") from error
    except httpx.HTTPError as error:
        raise SupabaseUnavailable(f"no answer from {_place(url)} ({type(error).__name__})") from error
    return httpx.Response(streamed.status_code, headers=_kept(streamed), content=b"".join(pieces))


def retry_after(response: httpx.Response) -> float:
    """The seconds that an answer asks us to stay away, 0 when it does not.

    >>> retry_after(httpx.Response(429, headers={"retry-after": "7"}))
    7.0
    """
    asked = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(asked) if asked.isascii() and asked.isdecimal() else _until(asked)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_ASKED) if math.isfinite(seconds) else LONGEST_ASKED


def _until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _kept(streamed: httpx.Response) -> list[tuple[bytes, bytes]]:
    """Of the headers only what is looked at: the body is decoded already."""
    return [(name, value) for name, value in streamed.headers.raw if name.lower() == b"retry-after"]


def _place(url: str) -> str:
    return url.partition("/v1/")[0] + "/v1" if "/v1/" in url else url
