"""One bridge process against the embedded stack: events read and merged, rows written, memory.

PYTHONPATH=. python tests/benchmarks/bench_publisher.py [runs] [events]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import psycopg
import redis

from bridge.events import Patch
from bridge.local import Stack
from bridge.local.realtime.limits import TenantLimits
from bridge.local.running import RunningStack
from bridge.outbox import RedisOutbox, stream_key
from bridge.settings import BridgeSettings, BroadcastSettings, OutboxSettings, SupabaseSettings

BRIDGE = (
    "import json, logging, os, sys\n"
    "from bridge.publisher import process\n"
    "from bridge.settings import BridgeSettings\n"
    "logging.basicConfig(level=logging.WARNING)\n"
    "process.run(BridgeSettings.model_validate_json(os.environ['BENCH_SETTINGS']))\n"
)
HOT_RUNS = 200


def main(runs: int = 100_000, events: int = 200_000) -> None:
    limits = TenantLimits(events_per_second=1_000_000, joins_per_second=1_000)
    with Stack.running(tenant=limits) as stack:
        settings = BridgeSettings(
            outbox=OutboxSettings(redis_url=stack.redis_url, prefix="bench"),
            supabase=SupabaseSettings(url=stack.url, key=stack.service_key),  # type: ignore[arg-type]
            broadcast=BroadcastSettings(messages_per_second=2_500),
        )
        outbox = RedisOutbox(settings.outbox)
        ids = [str(uuid.uuid4()) for _ in range(runs)]
        fill(outbox, [opened(run) for run in ids])
        with bridge(settings) as process:
            seconds = drained(settings, process)
            show("rows inserted", runs / seconds, "/s", f"{runs:,} new runs in {seconds:.1f} s")
            show("memory", process.memory_info().rss / 2**20, "MB", f"with {runs:,} live runs")
        fill(outbox, [progressed(run, 50) for run in ids[: runs // 2]])
        with bridge(settings) as process:
            seconds = drained(settings, process)
            show("rows updated", runs / 2 / seconds, "/s", f"while {runs:,} runs wait to be told")
        fill(outbox, [progressed(ids[number % HOT_RUNS], number * 100 // events) for number in range(events)])
        with bridge(settings) as process:
            seconds = drained(settings, process)
            busy = sum(process.cpu_times()[:2])
            detail = f"{events:,} of {HOT_RUNS} runs in {seconds:.1f} s, CPU {busy:.1f} s with the start"
            show("events read and merged", events / seconds, "/s", detail)
        outbox._redis.close()
        check(stack, ids)


def show(what: str, figure: float, unit: str, detail: str) -> None:
    print(f"{what:<24}{figure:>10,.0f} {unit:<4} {detail}", flush=True)


def opened(run: str) -> Patch:
    identity = {
        "task": "import_socials",
        "queue": "celery",
        "root_id": run,
        "channel": f"import-socials-{run}",
    }
    return Patch(
        run, 1, time.time(), {"status": "queued", "state": "PENDING", "user_id": run, **identity}, fresh=True
    )


def progressed(run: str, percent: int) -> Patch:
    fields = {
        "progress": percent,
        "current": percent,
        "total": 100,
        "message": f"Importing post {percent}...",
    }
    return Patch(run, 1, time.time(), fields)


def fill(outbox: RedisOutbox, patches: list[Patch]) -> None:
    for start in range(0, len(patches), 2_000):
        outbox.append([(patch.run_id, patch) for patch in patches[start : start + 2_000]])


@contextmanager
def bridge(settings: BridgeSettings) -> Iterator[psutil.Process]:
    plain = settings.model_dump(mode="json")
    assert settings.supabase is not None
    plain["supabase"]["key"] = settings.supabase.key.get_secret_value()
    env = {**os.environ, "BENCH_SETTINGS": json.dumps(plain)}
    process = subprocess.Popen([sys.executable, "-c", BRIDGE], env=env)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def drained(settings: BridgeSettings, process: psutil.Process) -> float:
    """Seconds from the first entry taken to the last one acknowledged."""
    client = redis.Redis.from_url(settings.outbox.redis_url)
    keys = [stream_key(settings.outbox.prefix, each) for each in range(settings.outbox.partitions)]

    def left() -> int:
        return sum(client.xlen(key) for key in keys)

    full = left()
    while left() == full:
        time.sleep(0.005)
    started = time.monotonic()
    while left():
        time.sleep(0.02)
    client.close()
    return time.monotonic() - started


def check(stack: RunningStack, ids: list[str]) -> None:
    with psycopg.connect(stack.database_url) as connection:
        found = connection.execute(
            "select count(*), count(*) filter (where progress = 99) from processing_jobs"
        ).fetchone()
    assert found == (len(ids), HOT_RUNS), found


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
