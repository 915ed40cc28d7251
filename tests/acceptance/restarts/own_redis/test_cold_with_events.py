"""Workers that send events (`-E`), and are stopped coldly while Redis does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import executing
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.restarts.conftest import Post
from tests.acceptance.restarts.own_redis.conftest import bridged
from tests.database import final_rows
from tests.lines import whole_lines
from tests.waiting import wait_until

APP = "tests.acceptance.restarts.eventful"


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    with bridged(settings, tmp_path, APP) as made:
        yield made


def heartbeats(folder: Path, moment: str) -> int:
    """How many were begun to be sent, or have been."""
    return len(whole_lines(folder / f"{moment}-heartbeats"))


@pytest.mark.parametrize("arguments", [(), ("-E",)])
@pytest.mark.parametrize("away", ["frozen", "killed"])
def test_a_worker_that_sends_events_ends_as_others_do(
    away: str, arguments: tuple[str, ...],
    fleet: Fleet, post: Post, server: Server, stack: RunningStack, tmp_path: Path,
) -> None:  # fmt: skip
    """While Redis refuses it ends at once; while Redis hangs it waits for it, as Celery does, and no longer.

    It is interrupted as it sends a heartbeat, and has more events to send of what it stops.
    """
    worker = fleet.start("prefork", 3, *arguments)
    runs = [post.send("plain", "long") for _ in range(3)]
    wait_until(lambda: executing(fleet, *runs), "they execute")
    if away == "killed":
        server.kill()
        worker.process.says("Connection to broker lost")
    else:
        before = heartbeats(tmp_path, "ends")
        wait_until(lambda: heartbeats(tmp_path, "ends") > before, "there is a while until the next")
        server.send(signal.SIGSTOP)
        begun = heartbeats(tmp_path, "ends") + 1
        wait_until(lambda: heartbeats(tmp_path, "begins") >= begun, "a heartbeat is being sent")
    os.kill(worker.pid, signal.SIGQUIT)
    worker.process.says("Hitting Ctrl+C again")
    if away == "killed":
        assert worker.process.end(0) in (0, 1)
        server.start()
    else:
        server.send(signal.SIGCONT)
        assert worker.process.end(0) == 0
    fleet.go("long")
    fleet.start("prefork", 3)
    assert {row["status"] for row in final_rows(stack, runs).values()} == {"completed"}
    assert {len(fleet.ledger.of(run)) for run in runs} == {2}
