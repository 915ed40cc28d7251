"""Each kind of outage of REST, of Realtime and of both: tasks go on, and afterwards all is true."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bridge.local.running import RunningStack
from tests.acceptance.outages.conftest import Listener, complete, in_thread, listening
from tests.acceptance.outages.origin import REALTIME, REST, Fault, Origin
from tests.conftest import User
from tests.database import final_rows
from tests.processes import Process
from tests.waiting import eventually

# realtime-py reads a deprecated property of websockets when its socket was closed by the server.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:realtime")

STATUSES = (401, 403, 413, 429, 500)
FAULTS = [
    *(Fault(kind) for kind in ("refuse", "hang", "slow", "drip", "page", "cut")),
    *(Fault("status", status) for status in STATUSES),
    Fault("status", 429, {"Retry-After": "1"}),
]
BOTH = (REST, REALTIME)
CASES = [
    *((fault, BOTH) for fault in FAULTS),
    *((fault, (REST,)) for fault in (Fault("refuse"), Fault("hang"), Fault("cut"))),
    *((fault, (REALTIME,)) for fault in (Fault("refuse"), Fault("hang"), Fault("status", 413))),
]
NAMES = [
    f"{fault}-{'both' if len(prefixes) == 2 else prefixes[0].split('/')[1]}" for fault, prefixes in CASES
]


def succeeded(worker: Process, runs: list[str]) -> bool:
    output = worker.output()
    return all(f"{run}] succeeded in " in output for run in runs)


@pytest.mark.parametrize(("fault", "prefixes"), CASES, ids=NAMES)
async def test_tasks_go_on_and_afterwards_rows_and_listeners_know_all(
    fault: Fault,
    prefixes: tuple[str, ...],
    tasks: Any,
    stack: RunningStack,
    origin: Origin,
    working: Process,
    bridging: Process,
    left: Callable[[], int],
    user: User,
) -> None:
    async with listening(stack, user) as heard:
        [usual] = runs_of(tasks, user, 1)
        before = (await in_thread(final_rows, stack, [usual]))[usual]
        said = len(bridging.output())
        with origin.away(fault, *prefixes):
            runs = runs_of(tasks, user, 4)
            await eventually(lambda: succeeded(working, runs), "all tasks succeed while the outage lasts")
            # Where both are away, nothing is there to be broadcast that was not before.
            await eventually(lambda: origin.asked[prefixes[0]] > 1, "the bridge asks in vain, and again")
            if REST in prefixes and fault.kind != "slow":
                assert left() > 0, "the outbox holds what cannot be written"
        found = await in_thread(final_rows, stack, runs)
        assert all(complete(stack, found[run]) for run in runs)
        await eventually(lambda: heard.told_the_end(runs), "the listener is told every end")
        await eventually(lambda: left() == 0, "the outbox is empty")
        await eventually(lambda: all_are_told(heard, found), "the last that it is told is what the rows say")
    assert all(map(heard.never_fell_back, runs))
    assert {(row["status"], row["progress"]) for row in found.values()} == {("completed", 100)}
    told = bridging.output()[said:]
    if fault.status in (401, 403) and fault.kind == "status":
        [_] = re.findall(rf"ERROR .* rows: .* refuses the key \({fault.status}\).* SUPABASE_SECRET_KEY", told)
    durations = [found[run]["result"]["seconds"] for run in runs]
    print(f"{fault}: seconds of a task {durations}, without an outage {before['result']['seconds']}")


def runs_of(tasks: Any, user: User, count: int) -> list[str]:
    return [tasks.chatty.delay(user.id).id for _ in range(count)]


def all_are_told(heard: Listener, found: dict[str, dict[str, Any]]) -> bool:
    same = ("seq", "status", "progress")
    lasts = {run: heard.of(run)[-1:] for run in found}
    return all(
        [[each[name] for name in same] for each in lasts[run]] == [[row[name] for name in same]]
        for run, row in found.items()
    )
