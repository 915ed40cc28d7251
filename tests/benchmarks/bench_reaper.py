"""What a look of the reaper costs: where all runs are, and which rows are quiet.

PYTHONPATH=. python tests/benchmarks/bench_reaper.py [runs]

Side by side: a hundredth of the runs, a tenth, and all; half of them queued, half held by workers, all quiet.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta
from uuid import uuid4

import psutil
import psycopg
import redis
from celery import Celery

from bridge.limits.scripts import LimitScripts
from bridge.local import Stack
from bridge.local.running import RunningStack
from bridge.reaper.quiet import QuietRows
from bridge.reaper.verdicts import verdict_on
from bridge.reaper.whereabouts import Lookout, Whereabouts
from bridge.settings import BridgeSettings, SupabaseSettings
from tests.benchmarks.parts import machine

PREFIX = "bench"
ROWS = """
insert into processing_jobs (id, root_id, task, queue, status, attempt, version, deployment, updated_at)
select id, id, 'tasks.a', 'bench', 'in_progress', 1, 1, 'bench', now() - interval '1 hour'
from unnest(%s::uuid[]) as id
"""


def main(most: int = 100_000) -> None:
    with Stack.running() as stack, redis.Redis.from_url(stack.redis_url) as client:
        print(machine(client))
        print(f"{'runs':>8}{'look at Redis':>16}{'look at rows':>15}{'a run':>12}{'true':>8}{'memory':>11}")
        for count in (most // 100, most // 10, most):
            one_size(stack, client, count)


def one_size(stack: RunningStack, client: redis.Redis, count: int) -> None:
    app = Celery("bench", broker=stack.redis_url, set_as_current=False)
    app.conf.task_default_queue = "bench"
    client.flushdb()
    ids = [str(uuid4()) for _ in range(count)]
    fill(stack, client, app, ids)
    before = memory()
    began = time.perf_counter()
    seen = Lookout(app, client, f"{PREFIX}:limits:").look(())
    looked = time.perf_counter() - began
    began = time.perf_counter()
    true = asyncio.run(judge(stack, seen))
    judged = time.perf_counter() - began
    each = (looked + judged) / count * 1e6
    print(
        f"{count:>8,}{looked:14.2f} s{judged:13.2f} s{each:9.0f} us{true:>8,}{memory() - before:8.0f} MB",
        flush=True,
    )


def fill(stack: RunningStack, client: redis.Redis, app: Celery, ids: list[str]) -> None:
    settings = BridgeSettings()
    LimitScripts(client, PREFIX).declare({}, settings.limits.lease, settings.limits.grant)
    model = app.send_task("tasks.a", args=["x" * 200], kwargs={"user_id": str(uuid4())}).id
    raw: bytes = client.lpop("bench")  # type: ignore[assignment]
    half = len(ids) // 2
    pipe = client.pipeline(transaction=False)
    for place, run in enumerate(ids[:half]):
        pipe.lpush("bench", raw.replace(model.encode(), run.encode()))
        if place % 1_000 == 999:
            pipe.execute()
    pipe.zadd(f"{PREFIX}:limits:workers", {"w1": 2**52})
    pipe.hset(f"{PREFIX}:limits:held:w1", mapping={f"{run}:1:0#1": "task|tasks.a|" for run in ids[half:]})
    pipe.execute()
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("truncate processing_jobs cascade")
        connection.execute(ROWS, (ids,))
        connection.execute("analyze processing_jobs")


async def judge(stack: RunningStack, seen: Whereabouts) -> int:
    """Read the quiet rows through REST and hold them against what was seen; returns how many are true."""
    settings = SupabaseSettings(url=stack.url, key=stack.service_key)  # type: ignore[arg-type]
    rows = QuietRows(settings, timedelta(minutes=1), PREFIX, timedelta(seconds=30))
    true = 0
    async for run in rows.runs():
        true += verdict_on(run, seen, comes_back=True) is None
    await rows.close()
    return true


def memory() -> float:
    return float(psutil.Process(os.getpid()).memory_info().rss) / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
