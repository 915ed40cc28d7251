"""Workers whose clock is an hour off: nothing that users are shown, and no run's time, goes by it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import APP, Keys, Post
from tests.database import final_rows, logs
from tests.processes import Process

HOUR = 3600
OFF = timedelta(seconds=5)
"""Far less than an hour, far more than a clock that is right may be off."""


class Wrong:
    """Workers with wrong clocks, ended with the test."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet, self._folder = fleet, folder
        self.processes: list[Process] = []

    def start(self, seconds: int, queue: str) -> Process:
        name = f"wrong{len(self.processes)}"
        command = [
            sys.executable,
            "-m",
            "tests.acceptance.restarts.offset",
            str(seconds),
            "-A",
            APP,
            "worker",
        ]
        command += ["-c", "2", "-n", f"{name}@%h", "-l", "INFO", "-Q", queue, "--without-gossip"]
        process = Process(command, self._fleet.env, self._folder / f"{name}.log")
        self.processes.append(process)
        process.says(" ready.")
        return process


@pytest.fixture
def wrong(fleet: Fleet, tmp_path: Path) -> Iterator[Wrong]:
    made = Wrong(fleet, tmp_path)
    yield made
    for process in made.processes:
        process.end()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_off_changes_neither_truth_nor_order(
    hours: int,
    wrong: Wrong,
    fleet: Fleet,
    post: Post,
    books: Keys,
    settings: BridgeSettings,
    stack: RunningStack,
    new_bridge: Callable[[], Process],
) -> None:
    """A run that starts, retries and ends there, one each for its time and its expiry, one that waits."""
    new_bridge()
    fleet.go("now")
    right, off = f"{settings.outbox.prefix}-right", f"{settings.outbox.prefix}-off"
    wrong.start(hours * HOUR, off)
    fleet.start("prefork", 2, "-Q", right)
    at = datetime.now(UTC)
    runs = {
        "plain": post.send("plain", "now", queue=off),
        "again": post.send("again", "now", queue=off),
        "later": post.send("plain", "now", queue=off, countdown=3),
        "expires": post.send("plain", "now", queue=off, expires=600),
        "moves": post.send("again_elsewhere", right, queue=off),
    }
    found = {kind: final_rows(stack, list(runs.values()))[run] for kind, run in runs.items()}
    assert {row["status"] for row in found.values()} == {"completed"}
    for kind, row in found.items():
        times = [row["created_at"], row["started_at"], row["finished_at"]]
        assert all(at - OFF < each < datetime.now(UTC) + OFF for each in times), (kind, times)
        assert times == sorted(times), kind
        lines = [line["created_at"] for line in logs(stack, runs[kind])]
        assert all(at - OFF < each < datetime.now(UTC) + OFF for each in lines), kind
    assert found["later"]["started_at"] - at >= timedelta(seconds=3)
    assert found["moves"]["attempt"] == 2
