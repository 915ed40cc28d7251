"""Following a channel in the terminal, with the official client, as any listener would."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from bridge.errors import KeyRefused, SchemaMissing, SettingsError, SupabaseUnavailable
from bridge.rest import answered, headers_for, not_supabase
from bridge.rows import storable
from bridge.settings import BridgeSettings, SupabaseSettings
from bridge.text import LOG_LINE_LIMIT, public, shorten

Event = tuple[str, dict[str, Any]]
"""(`state`, `progress`, `log`, `row`, `joined` or `away`, payload)"""

_EVENTS: Final = ("state", "progress", "log")
_RETRY_AFTER: Final = 2.0
_RECENT: Final = 10
_COLUMNS: Final = "run_id:id,task,status,progress,step,message,attempt,seq,at:updated_at"
_BAR: Final = 20
_LONGEST: Final = LOG_LINE_LIMIT + 100
_REMEDY: Final = (
    "set SUPABASE_SECRET_KEY to the project's secret key (sb_secret_... or the legacy service_role JWT)"
)


def run(settings: BridgeSettings, channel: str, as_json: bool = False) -> None:
    """Print what happens on `channel` until interrupted; `as_json` prints one object a line.

    Raises:
        SettingsError: there is no Supabase project to listen to.
        KeyRefused, SchemaMissing: nothing can be heard before somebody changes something.
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

    Raises:
        KeyRefused, SchemaMissing: at the first join only; later both are waited out.
    """
    seen: dict[str, int] = {}
    joined = False
    while True:
        try:
            async for event, payload in _connection(supabase, channel, private):
                # On a public channel anybody may say anything: what is no snapshot is shown and not counted.
                run, seq = str(payload.get("run_id")), payload.get("seq")
                if event == "row" and seen.get(run, -1) >= payload["seq"]:
                    continue
                if event in ("row", "state", "progress") and isinstance(seq, int):
                    seen[run] = seq
                joined = joined or event == "joined"
                yield event, payload
        except (KeyRefused, SchemaMissing) as error:
            if not joined:
                raise
            yield "away", {"message": str(error)}
        await asyncio.sleep(_RETRY_AFTER)


async def _connection(supabase: SupabaseSettings, channel: str, private: bool) -> AsyncIterator[Event]:
    """One connection's events, until it ends."""
    events: asyncio.Queue[Event] = asyncio.Queue()

    def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
        if state == RealtimeSubscribeStates.SUBSCRIBED:
            events.put_nowait(("joined", {"message": channel}))
        else:
            events.put_nowait(("away", {"message": _reason(error) or state.value.lower()}))

    key = supabase.key.get_secret_value()
    client = AsyncRealtimeClient(f"{supabase.url}/realtime/v1", key, auto_reconnect=False)
    joined = client.channel(channel, _join_config(private))
    for name in _EVENTS:
        joined.on_broadcast(name, lambda frame: events.put_nowait(_event(frame)))
    try:
        await client.connect()
        await joined.subscribe(on_state)
        while True:
            event, payload = await events.get()
            if event == "away":
                _raise_refusal(payload["message"], channel)
            rows = await _recent(supabase, channel) if event == "joined" else []
            yield event, payload
            for row in rows:
                yield "row", row
            if event == "away":
                return
    except (KeyRefused, SchemaMissing):
        raise
    except SupabaseUnavailable as error:
        yield "away", {"message": str(error)}
    except Exception as error:
        # The client raises bare Exception, and those of its websocket library.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise KeyRefused(f"{supabase.url} refuses the key ({status}): {_REMEDY}") from error
        told = f"no answer from {supabase.url}/realtime/v1 ({type(error).__name__})"
        yield "away", {"message": f"{supabase.url}/realtime/v1 answers {status}" if status else told}
    finally:
        with suppress(Exception):
            await client.close()


def _event(frame: Mapping[str, Any]) -> Event:
    payload = frame.get("payload")
    return str(frame["event"]), dict(payload) if isinstance(payload, Mapping) else {"message": str(payload)}


async def _recent(supabase: SupabaseSettings, channel: str) -> list[dict[str, Any]]:
    """The channel's latest rows, oldest change first."""
    query = {
        "channel": f"eq.{channel}",
        "select": _COLUMNS,
        "order": "updated_at.desc",
        "limit": str(_RECENT),
    }
    async with httpx.AsyncClient(headers=headers_for(supabase), timeout=10) as client:
        asked = client.get(f"{supabase.url}/rest/v1/processing_jobs", params=query)
        rows = await answered(asked, supabase.url)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_count(row) for row in rows):
        raise not_supabase(supabase.url)
    return rows[::-1]


def _is_count(row: dict[str, Any]) -> bool:
    return type(row.get("seq")) is int


def _reason(error: Exception | None) -> str:
    """What Realtime answered to a join; the client hands it on as the text of a JSON object."""
    with suppress(ValueError, TypeError):
        return str(json.loads(str(error))["reason"])
    return str(error or "")


def _raise_refusal(reason: str, channel: str) -> None:
    if reason.startswith("Unauthorized"):
        raise KeyRefused(f"this key may not listen on {channel}: {_REMEDY}")
    if reason.startswith("PrivateOnly"):
        raise SettingsError(f"{channel}: this project has private channels only: set BROADCAST_PRIVATE=true")


def _join_config(private: bool) -> Any:
    return {"config": {"private": private, "broadcast": {"ack": False, "self": False}, "presence": None}}


async def _print(supabase: SupabaseSettings, channel: str, private: bool, as_json: bool) -> None:
    away = ""
    state: tuple[Any, Any] = ("", 0)
    async for event, payload in follow(supabase, channel, private):
        snapshot = (payload.get("run_id"), payload.get("seq"))
        if event == "progress" and snapshot == state and not as_json:
            continue  # the same snapshot, told as a state a moment ago
        if event == "state":
            state = snapshot
        if event == "away" and payload["message"] == away:
            continue  # told once, not with every attempt
        away = payload["message"] if event == "away" else ""
        line = json_of(event, payload) if as_json else line_of(event, payload, _clock())
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _clock() -> datetime:
    return datetime.now(UTC).astimezone()


def json_of(event: str, payload: dict[str, Any]) -> str:
    """One strict JSON object; what a message says of its own event counts for nothing."""
    return json.dumps(storable({"event": "", **payload} | {"event": event}))


def line_of(event: str, payload: dict[str, Any], now: datetime) -> str:
    """One aligned line for people; control characters of what users wrote are taken out.

    >>> line_of("progress", {"run_id": "7d1c...", "status": "in_progress", "progress": 40,
    ...                      "message": "Importing"}, now)
    '12:00:00 progress in_progress ########............  40 % 7d1c... Importing'
    """
    clock = f"{now:%H:%M:%S}"
    if event in ("joined", "away"):
        return _one_line(f"{clock} {event:<8} {payload.get('message', '')}")
    percent = payload.get("progress")
    shown = max(0, min(100, percent)) if isinstance(percent, int) else 0
    bar = f"{bar_of(shown)} {shown:>3} %" if isinstance(percent, int) else " " * (_BAR + 6)
    text = payload.get("message") or payload.get("step") or ""
    if event == "log":
        text = f"{payload.get('level')}: {text}"
    status, run = shorten(public(str(payload.get("status"))), 20), str(payload.get("run_id"))[:8]
    return _one_line(f"{clock} {event:<8} {status:<11} {bar} {run} {text}")


def _one_line(text: str) -> str:
    return shorten(" ".join(public(text).splitlines()).replace("\t", " ").rstrip(), _LONGEST)


def bar_of(percent: int) -> str:
    """The share that is done, drawn in plain characters."""
    filled = max(0, min(100, percent)) * _BAR // 100
    return "#" * filled + "." * (_BAR - filled)
