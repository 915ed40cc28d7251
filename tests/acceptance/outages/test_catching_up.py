"""What comes first, what is left out and what is set apart when Supabase is back."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import redis

from bridge.events import Patch
from bridge.local.running import RunningStack
from bridge.outbox import RedisOutbox
from bridge.settings import BridgeSettings
from tests.acceptance.outages.conftest import Door, complete, in_thread, listening
from tests.acceptance.outages.origin import REALTIME, REST, Fault, Origin
from tests.conftest import User
from tests.database import final_rows, rows
from tests.processes import Process
from tests.waiting import eventually

# realtime-py reads a deprecated property of websockets when its socket was closed by the server.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:realtime")

AWAY = Fault("status", 503)
SILENCE = 2.5
"""Seconds: what is less than two older than the last is no more stale than ever."""


async def test_progress_of_the_time_away_is_not_replayed(
    tasks: Any,
    stack: RunningStack,
    origin: Origin,
    working: Process,
    bridging: Process,
    left: Callable[[], int],
    user: User,
    door: Door,
) -> None:
    async with listening(stack, user) as heard:
        with origin.away(AWAY, REST, REALTIME):
            runs = [tasks.talking.delay(user.id, door.path, SILENCE).id for _ in range(2)]
            await eventually(lambda: origin.asked[REST] > 0, "the first of it was read already")
            await eventually(
                lambda: left() > 2 * 15 * 20, "progress for some 15 reads of 20 waits of each run"
            )
            door.open()
            await eventually(
                lambda: all(f"{run}] succeeded in " in working.output() for run in runs), "the tasks succeed"
            )
        found = await in_thread(final_rows, stack, runs)
        await eventually(lambda: heard.told_the_end(runs), "the listener is told every end")
        await eventually(lambda: left() == 0, "the outbox is empty")
        assert all(complete(stack, found[run]) for run in runs)
    for run in runs:
        told = [payload["progress"] for payload in heard.of(run, "progress")]
        assert set(told) <= {0, 100}
        assert told[-1] == 100
        assert heard.never_fell_back(run)


@contextmanager
def slow_rows(stack: RunningStack, seconds: float, limit: str) -> Iterator[None]:
    """A database that is slow with rows of the task `slow`, and gives no statement more than `limit`."""
    with psycopg.connect(stack.database_url, autocommit=True) as database:
        database.execute(
            "create function public.dawdle() returns trigger language plpgsql as "
            f"$$ begin perform pg_sleep({seconds}); return new; end $$"
        )
        database.execute(
            "create trigger dawdle before insert on processing_jobs for each row "
            "when (new.task = 'slow') execute function public.dawdle()"
        )
        database.execute(f"alter role service_role set statement_timeout = '{limit}'")
        database.execute("notify pgrst, 'reload config'")
        try:
            yield
        finally:
            database.execute("alter role service_role reset statement_timeout")
            database.execute("notify pgrst, 'reload config'")
            database.execute("drop trigger dawdle on processing_jobs")
            database.execute("drop function public.dawdle()")


@pytest.fixture
def outbox(through: BridgeSettings) -> RedisOutbox:
    return RedisOutbox(through.outbox)


def ended(user: User, task: str = "import", **fields: Any) -> Patch:
    run = str(uuid.uuid4())
    identity = {"task": task, "user_id": user.id, "channel": f"import-socials-{user.id}", "root_id": run}
    return Patch(run, 1, time.time(), {"status": "completed", **identity, **fields}, fresh=True)


async def test_a_batch_that_the_database_has_no_time_for_is_written_in_parts(
    stack: RunningStack,
    origin: Origin,
    outbox: RedisOutbox,
    bridging: Process,
    left: Callable[[], int],
    user: User,
) -> None:
    patches = [ended(user, "slow") for _ in range(20)]
    with slow_rows(stack, 0.15, "750ms"):  # a second is what the bridge gives a request
        outbox.append([(patches[0].run_id, patch) for patch in patches])  # of one root: in one partition
        found = await in_thread(final_rows, stack, [patch.run_id for patch in patches])
        await eventually(lambda: left() == 0, "the outbox is empty")
    assert "takes too long over the batch (57014)" in bridging.output()
    assert len(found) == 20


async def test_a_batch_that_is_too_large_is_written_in_parts_and_holds_up_nothing(
    stack: RunningStack,
    settings: BridgeSettings,
    origin: Origin,
    outbox: RedisOutbox,
    bridging: Process,
    left: Callable[[], int],
    user: User,
) -> None:
    patches = [ended(user, result="x" * 1_000) for _ in range(15)]
    huge = ended(user, result="x" * 20_000)
    patches.insert(7, huge)
    with origin.away(Fault("status", 413, above=6_000), REST):
        origin.passed.clear()
        outbox.append([(huge.run_id, patch) for patch in patches])
        fitting = [patch.run_id for patch in patches if patch is not huge]
        await in_thread(final_rows, stack, fitting)
        await eventually(lambda: left() == 0, "the outbox is empty")
    assert rows(stack, [huge.run_id]) == {}
    with redis.Redis.from_url(settings.outbox.redis_url) as client:
        [(_, dead)] = client.xrevrange(f"{settings.outbox.prefix}:dead", count=1)
    assert dead[b"reason"] == b"too large"
    assert huge.run_id.encode() in dead[b"e"]
    largest = max(size for path, size in origin.passed if path.endswith("/mirror_runs"))
    assert 3_000 < largest <= 6_000, "what fits goes together"


@pytest.mark.parametrize(("prefix", "name"), [(REST, "mirror_runs"), (REALTIME, "broadcast")])
async def test_who_asks_to_be_left_alone_for_a_while_is_left_alone(
    prefix: str,
    name: str,
    tasks: Any,
    stack: RunningStack,
    settings: BridgeSettings,
    origin: Origin,
    working: Process,
    bridging: Process,
    user: User,
) -> None:
    outbox = settings.outbox
    async with listening(stack, user) as heard:
        earlier = tasks.chatty.delay(user.id).id
        await in_thread(final_rows, stack, [earlier])
        with origin.away(Fault("status", 429, {"Retry-After": "2"}), prefix):
            runs = [tasks.chatty.delay(user.id).id for _ in range(3)]
            await eventually(lambda: origin.times[name], "it is asked")
            with redis.Redis.from_url(outbox.redis_url) as client:  # a run to be reminded of
                client.sadd(f"{outbox.prefix}:unsent:0", earlier)
            await eventually(lambda: len(origin.times[name]) > 2, "it is asked again, and again")
            times, reminders = list(origin.times[name]), list(origin.times["run_snapshots"])
        await in_thread(final_rows, stack, runs)
        await eventually(lambda: heard.told_the_end(runs), "the ends are told")
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 1.9
    assert not any(at > times[0] + 1.5 for at in reminders), "but what was under way"
