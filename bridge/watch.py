"""Following a channel in the terminal, with the official client, as any listener would."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from bridge.errors import SettingsError
from bridge.rows import headers_for
from bridge.settings import BridgeSettings, SupabaseSettings
from bridge.text import public

Event = tuple[str, dict[str, Any]]
"""(`state`, `progress`, `log`, `row`, `joined` or `away`, payload)"""

_EVENTS: Final = ("state", "progress", "log")
_RETRY_AFTER: Final = 2.0
_RECENT: Final = 10
_COLUMNS: Final = "run_id:id,task,status,progress,step,message,attempt,seq,at:updated_at"
_BAR: Final = 20


def run(settings: BridgeSettings, channel: str, as_json: bool = False) -> None:
    """Print what happens on `channel` until interrupted; `as_json` prints one object a line.

    Raises:
        SettingsError: there is no Supabase project to listen to.
    """
    if settings.supabase is None:
        raise SettingsError("watch needs a Supabase project: set SUPABASE_URL and SUPABASE_SECRET_KEY")
    logging.getLogger("realtime").setLevel(logging.CRITICAL)  # outages are told here, in our words
    with suppress(KeyboardInterrupt):
        asyncio.run(_print(settings.supabase, channel, settings.broadcast.private, as_json))


async def follow(supabase: SupabaseSettings, channel: str, private: bool = True) -> AsyncIterator[Event]:
    """What happens on the channel, for ever; after each join, rows that changed while nobody listened.

    >>> async for event, payload in follow(settings.supabase, "import-socials-7d1c"):
    ...     print(event, payload)
    """
    seen: dict[str, int] = {}
    while True:
        async for event, payload in _connection(supabase, channel, private):
            if event == "row" and seen.get(payload["run_id"], -1) >= payload["seq"]:
                continue
            if event in ("row", "state", "progress"):
                seen[payload["run_id"]] = payload["seq"]
            yield event, payload
        await asyncio.sleep(_RETRY_AFTER)


async def _connection(supabase: SupabaseSettings, channel: str, private: bool) -> AsyncIterator[Event]:
    """One connection's events, until it ends."""
    events: asyncio.Queue[Event] = asyncio.Queue()

    def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
        if state == RealtimeSubscribeStates.SUBSCRIBED:
            events.put_nowait(("joined", {}))
        else:
            events.put_nowait(("away", {"message": str(error or state.value)}))

    key = supabase.key.get_secret_value()
    client = AsyncRealtimeClient(f"{supabase.url}/realtime/v1", key, auto_reconnect=False)
    joined = client.channel(channel, _join_config(private))
    for name in _EVENTS:
        joined.on_broadcast(name, lambda frame: events.put_nowait((frame["event"], frame["payload"])))
    try:
        await client.connect()
        await joined.subscribe(on_state)
        while True:
            event, payload = await events.get()
            yield event, payload
            if event == "away":
                return
            if event == "joined":
                for row in await _recent(supabase, channel):
                    yield "row", row
    except Exception as error:
        # The client raises bare Exception, and those of its websocket library.
        yield "away", {"message": f"{type(error).__name__}: {error}"}
    finally:
        with suppress(Exception):
            await client.close()


async def _recent(supabase: SupabaseSettings, channel: str) -> list[dict[str, Any]]:
    """The channel's latest rows, oldest change first."""
    query = {
        "channel": f"eq.{channel}",
        "select": _COLUMNS,
        "order": "updated_at.desc",
        "limit": str(_RECENT),
    }
    async with httpx.AsyncClient(headers=headers_for(supabase), timeout=10) as client:
        response = await client.get(f"{supabase.url}/rest/v1/processing_jobs", params=query)
        response.raise_for_status()
    rows: list[dict[str, Any]] = response.json()
    return rows[::-1]


def _join_config(private: bool) -> Any:
    return {"config": {"private": private, "broadcast": {"ack": False, "self": False}, "presence": None}}


async def _print(supabase: SupabaseSettings, channel: str, private: bool, as_json: bool) -> None:
    async for event, payload in follow(supabase, channel, private):
        line = json.dumps({"event": event, **payload}) if as_json else line_of(event, payload, _clock())
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _clock() -> datetime:
    return datetime.now(UTC).astimezone()


def line_of(event: str, payload: dict[str, Any], now: datetime) -> str:
    """One aligned line for people; control characters of what users wrote are taken out.

    >>> line_of("progress", {"run_id": "7d1c...", "status": "in_progress", "progress": 40,
    ...                      "message": "Importing"}, now)
    '12:00:00 progress in_progress ########............  40 % 7d1c... Importing'
    """
    clock = f"{now:%H:%M:%S}"
    if event in ("joined", "away"):
        return f"{clock} {event:<8} {public(str(payload.get('message', '')))}".rstrip()
    percent = payload.get("progress")
    bar = " " * (_BAR + 6) if percent is None else f"{bar_of(percent)} {percent:>3} %"
    text = payload.get("message") or payload.get("step") or ""
    if event == "log":
        text = f"{payload.get('level')}: {text}"
    status, run = str(payload.get("status")), str(payload.get("run_id"))[:8]
    return f"{clock} {event:<8} {status:<11} {bar} {run} {public(str(text))}".rstrip()


def bar_of(percent: int) -> str:
    """The share that is done, drawn in plain characters."""
    filled = max(0, min(100, percent)) * _BAR // 100
    return "#" * filled + "." * (_BAR - filled)
