"""Bridges that are replaced, killed and stopped while events go through them: rows and logs miss nothing."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import redis

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits.ledger import now
from tests.acceptance.restarts.conftest import LEASE, PARTITIONS, Keys, Post
from tests.acceptance.restarts.load import Load, all_is_true
from tests.database import logs
from tests.processes import Process
from tests.waiting import SLACK, wait_until

TAKEN_OVER = LEASE.total_seconds() * 4 / 3 + SLACK
"""Seconds until a killed bridge's partitions are another's: its lease, and a beat of the other."""


def reads(process: Process) -> list[int]:
    """The partitions that a bridge has said last that it reads."""
    said = re.findall(r"reading partitions \[([\d, ]*)\]", process.output())
    return [int(each) for each in said[-1].split(",") if each.strip()] if said else []


def takes(process: Process, count: int) -> float:
    """Seconds until a bridge reads so many partitions."""
    at = now()
    wait_until(lambda: len(reads(process)) == count, f"{process.log.name} reads {count} partitions")
    return now() - at


def holders(client: redis.Redis, settings: BridgeSettings) -> set[str]:
    """Those who hold partitions, as Redis knows them."""
    held: Any = client.mget(client.keys(f"{settings.outbox.prefix}:partition:*"))
    return {token.decode() for token in held if token is not None}


def nothing_is_missing(load: Load, fleet: Fleet, books: Keys, stack: RunningStack) -> None:
    """Each row is right and each run has its log lines, once and in their order."""
    all_is_true(load, fleet, books, stack)
    for run, kind in load.runs.items():
        lines = [line["message"] for line in logs(stack, run)]
        if kind == "again":
            assert "Trying again" in lines.pop(0)
        number = 2 if kind == "again" else 1
        assert lines == ([] if kind == "gather" else [f"begun {number}", f"ends {number}"]), (run, kind)


def test_bridges_are_replaced_under_load_and_a_killed_ones_partitions_are_taken_over_within_seconds(
    fleet: Fleet,
    post: Post,
    books: Keys,
    stack: RunningStack,
    client: redis.Redis,
    settings: BridgeSettings,
    new_bridge: Callable[[], Process],
) -> None:
    first, second = new_bridge(), new_bridge()
    fleet.start("prefork", 4)
    load = Load(post)
    with load.going_on():
        takes(first, 3)
        takes(second, 3)
        third = new_bridge()
        takes(third, 2)
        first.end()
        second.end()
        assert len(holders(client, settings)) == 1, "who ends has given its partitions back"
        at_once = takes(third, PARTITIONS)
        fourth = new_bridge()
        takes(fourth, 3)
        third.kill()
        killed = takes(fourth, PARTITIONS)
        load.reaches(200)
    print(f"\nall partitions {at_once:.2f} s after SIGTERM, {killed:.2f} s after SIGKILL")
    assert killed < TAKEN_OVER
    nothing_is_missing(load, fleet, books, stack)


def test_a_stopped_bridge_that_wakes_does_no_harm(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    """It is stopped twice; what took over for it is killed when it wakes for the second time."""
    first, second = new_bridge(), new_bridge()
    fleet.start("prefork", 4)
    load = Load(post)
    with load.going_on():
        takes(first, 3)
        takes(second, 3)
        os.kill(first.pid, signal.SIGSTOP)
        takes(second, PARTITIONS)
        os.kill(first.pid, signal.SIGCONT)
        takes(first, 3)
        os.kill(first.pid, signal.SIGSTOP)
        takes(second, PARTITIONS)
        sent = len(load.runs)
        load.reaches(sent + 60)
        second.kill()
        os.kill(first.pid, signal.SIGCONT)
        takes(first, PARTITIONS)
        load.reaches(sent + 100)
    nothing_is_missing(load, fleet, books, stack)
