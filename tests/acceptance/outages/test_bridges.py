"""Bridges of their own: poor ones, such as start while Supabase is away, and the memory they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.outages.conftest import Door, complete, in_thread, listening
from tests.acceptance.outages.origin import REALTIME, REST, Fault, Origin
from tests.conftest import User
from tests.database import final_rows, rows
from tests.processes import Process, bridge
from tests.waiting import eventually, wait_until

# realtime-py reads a deprecated property of websockets when its socket was closed by the server.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:realtime")


async def test_ends_come_before_the_progress_of_others_when_few_messages_may_be_sent(
    tasks: Any,
    stack: RunningStack,
    through: BridgeSettings,
    origin: Origin,
    working: Process,
    user: User,
    door: Door,
    tmp_path: Path,
) -> None:
    poor = through.broadcast.model_copy(update={"messages_per_second": 20, "listeners": 1})
    with bridge(through.model_copy(update={"broadcast": poor}), tmp_path) as process:
        process.says("reading partitions")
        async with listening(stack, user) as heard:
            with origin.away(Fault("refuse"), REALTIME):
                going = [tasks.talking.delay(user.id, door.path).id for _ in range(3)]
                await eventually(lambda: len(rows(stack, going)) == 3, "they have begun")
                ending = [tasks.chatty.delay(user.id).id for _ in range(12)]
                await in_thread(final_rows, stack, ending)
                already = len(heard.frames)
            await eventually(lambda: heard.told_the_end(ending), "the ends are told")
            told = [payload for event, payload in heard.frames[already:] if event != "log"]
            first = {payload["run_id"]: place for place, payload in reversed([*enumerate(told)])}
            last_end = max(first[run] for run in ending)
            assert {payload["run_id"] for payload in told[:last_end]} <= set(ending)
            door.open()
            await in_thread(final_rows, stack, going)


@pytest.mark.parametrize("fault", [Fault("hang"), Fault("page"), Fault("status", 413)], ids=str)
async def test_a_bridge_that_starts_during_an_outage_waits_for_its_end(
    fault: Fault,
    tasks: Any,
    stack: RunningStack,
    through: BridgeSettings,
    origin: Origin,
    working: Process,
    user: User,
    tmp_path: Path,
) -> None:
    with origin.away(fault, REST, REALTIME), bridge(through, tmp_path) as process:
        run = tasks.chatty.delay(user.id).id
        await eventually(lambda: origin.asked[REST] > 2, "it asks again and again")
        process.says("supabase: ")
        assert process.output().count(" ERROR ") == 1, "it says so once"
        origin.come_back()
        [row] = (await in_thread(final_rows, stack, [run])).values()
        assert complete(stack, row)


def test_a_bridge_that_starts_with_a_refused_key_ends_with_a_line_that_helps(
    through: BridgeSettings, origin: Origin, tmp_path: Path
) -> None:
    with origin.away(Fault("status", 401), REST), bridge(through, tmp_path) as process:
        wait_until(lambda: process.exit_code() == 1, "it ends")
        lines = process.output().splitlines()
    assert "SUPABASE_SECRET_KEY" in lines[-1]
    assert "Traceback" not in process.output()


async def test_a_key_that_is_revoked_and_restored_costs_nothing_but_time(
    tasks: Any,
    stack: RunningStack,
    through: BridgeSettings,
    origin: Origin,
    working: Process,
    user: User,
    door: Door,
    tmp_path: Path,
) -> None:
    with bridge(through, tmp_path) as process:
        process.says("reading partitions")
        run = tasks.talking.delay(user.id, door.path).id
        await eventually(lambda: rows(stack, [run]), "it has begun")
        with origin.away(Fault("status", 401), REST, REALTIME):
            await eventually(lambda: origin.asked[REST] > 4, "it asks again and again")
            door.open()
            await eventually(lambda: f"{run}] succeeded in " in working.output(), "the task goes on")
            told = process.output()
            assert told.count("ERROR bridge.backoff: rows: ") == 1, told
            assert "set SUPABASE_SECRET_KEY; nothing is lost" in told
        [row] = (await in_thread(final_rows, stack, [run])).values()
        assert complete(stack, row)
        process.says("rows is back after")
