"""A bridge process: one publisher, with the reaper of an app, from its start to a signal."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from bridge.broadcast import RealtimeBroadcaster
from bridge.errors import SettingsError
from bridge.publisher.publisher import Publisher
from bridge.reaper.quiet import QuietRows
from bridge.reaper.reaper import LEASES_QUIET, Reaper
from bridge.rows import SupabaseRows
from bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from bridge.extension import Bridge


def run(settings: BridgeSettings, bridge: Bridge | None = None) -> None:
    """Be a bridge process until SIGTERM or SIGINT; with an app's `bridge`, its reaper as well.

    Raises:
        SettingsError, KeyRefused, SchemaMissing: nothing can work before somebody changes something.
    """
    asyncio.run(_serve(settings, bridge))


async def _serve(settings: BridgeSettings, bridge: Bridge | None) -> None:
    supabase = settings.supabase
    if supabase is None:
        raise SettingsError("the bridge needs a Supabase project: set SUPABASE_URL and SUPABASE_SECRET_KEY")
    timeout = settings.publisher.request_timeout
    async with AsyncExitStack() as stack:
        redis = Redis.from_url(settings.outbox.redis_url)
        stack.push_async_callback(redis.aclose)
        rows = SupabaseRows(supabase, timeout, settings.deployment)
        stack.push_async_callback(rows.close)
        broadcaster = RealtimeBroadcaster(supabase, settings.broadcast.private, timeout)
        stack.push_async_callback(broadcaster.close)
        reaper = None
        if bridge is not None:
            quiet = QuietRows(supabase, timeout, settings.deployment, LEASES_QUIET * settings.limits.lease)
            stack.push_async_callback(quiet.close)
            reaper = Reaper(bridge, quiet, redis)
        publisher = Publisher(settings, redis, rows, broadcaster, reaper)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, publisher.stop)
        await publisher.run()
