"""From `self.progress()` in a worker to the callback of an official client, at rising event rates.

Run: PYTHONPATH=. python tests/benchmarks/bench_latency.py
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from supabase import acreate_client

from bridge.local import Stack
from bridge.local.realtime.limits import TenantLimits
from bridge.local.running import RunningStack
from tests.conftest import settings_on
from tests.processes import bridge, environment, worker

SECONDS = 12
RATES = (50, 250, 1_000)  # events a second
EVERY = 0.32  # seconds between two calls of a run, just above the progress interval


async def measure(stack: RunningStack, app: ModuleType, rate: int) -> tuple[list[float], float]:
    """Delays of all progress messages in seconds, and the messages a second that arrived."""
    user, delays = str(uuid4()), []
    client = await acreate_client(stack.url, stack.service_key)
    options: Any = {"config": {"private": True}}
    channel = client.channel(f"bench-{user}", options)

    def take(told: Any) -> None:
        snapshot = told["payload"]
        if snapshot["status"] == "in_progress" and snapshot["message"]:
            delays.append(time.time() - float(snapshot["message"]))

    joined = asyncio.Event()
    channel.on_broadcast("progress", take)
    await channel.subscribe(lambda *_: joined.set())
    await joined.wait()
    runs = int(rate * EVERY)
    until = time.time() + SECONDS
    await asyncio.to_thread(lambda: [app.report.delay(user, EVERY, until) for _ in range(runs)])
    await asyncio.sleep(until - time.time() + 2)
    await client.remove_all_channels()
    await client.realtime.close()
    return delays, len(delays) / SECONDS


def main() -> None:
    limits = TenantLimits(events_per_second=20_000)
    with Stack.running(tenant=limits) as stack, tempfile.TemporaryDirectory() as logs:
        settings = settings_on(stack, "latency")
        broadcast = settings.broadcast.model_copy(update={"messages_per_second": 10_000})
        settings = settings.model_copy(update={"broadcast": broadcast})
        os.environ.update(environment(settings))
        from tests.benchmarks import latency_app

        pool = {"pool": "threads", "concurrency": 400, "app": "tests.benchmarks.latency_app"}
        interval = settings.outbox.flush_interval / timedelta(milliseconds=1)
        print(f"flush interval {interval:.0f} ms; one worker with 400 threads, one bridge, one client")
        print(f"{'asked /s':>9} {'seen /s':>9} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
        with (
            bridge(settings, Path(logs), app="tests.benchmarks.latency_app"),
            worker(settings, Path(logs), **pool),  # type: ignore[arg-type]
        ):
            for rate in RATES:
                delays, seen = asyncio.run(measure(stack, latency_app, rate))
                cuts = [cut * 1_000 for cut in statistics.quantiles(delays, n=100)]
                print(f"{rate:>9} {seen:>9.0f} {cuts[49]:>8.1f} {cuts[94]:>8.1f} {cuts[98]:>8.1f}")


if __name__ == "__main__":
    main()
