"""Runs that ask for another attempt while Redis, which was to take its message, is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet, Server, Worker
from tests.acceptance.restarts.conftest import Post
from tests.acceptance.restarts.own_redis.conftest import bridged
from tests.database import final_rows
from tests.waiting import wait_until

APP = "tests.acceptance.restarts.endings"


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    with bridged(settings, tmp_path, APP) as made:
        yield made


def asks(pool: str, fleet: Fleet, post: Post, server: Server, tmp_path: Path) -> tuple[Worker, str]:
    """A worker whose run has found that Redis takes no message, and the run."""
    worker = fleet.start(pool, 1)
    run = str(post.app.send_task(f"{APP}.asks_again", ("ask",)).id)
    wait_until((tmp_path / f"at-{run}").exists, "it executes")
    server.kill()
    fleet.go("ask")
    worker.process.says("waits for the broker")
    return worker, run


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_next_attempt_of_a_run_is_published_once_redis_is_back(
    pool: str, fleet: Fleet, post: Post, server: Server, stack: RunningStack, tmp_path: Path
) -> None:
    """Celery gives up after seconds; the run would have failed, and nobody could have been told."""
    _, run = asks(pool, fleet, post, server, tmp_path)
    server.start()
    row = final_rows(stack, [run])[run]
    assert (row["status"], row["attempt"], row["error_code"]) == ("completed", 2, None)
    assert fleet.ledger.of(run)[0].end == "left"
    assert len(fleet.ledger.of(run)) == 2
    assert post.app.AsyncResult(run).state == "SUCCESS"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_shutdown_meanwhile_loses_no_run(
    number: signal.Signals, fleet: Fleet, post: Post, server: Server, stack: RunningStack, tmp_path: Path
) -> None:
    """A warm one waits for it, as for any run; a cold one stops it, and it is executed again."""
    worker, run = asks("prefork", fleet, post, server, tmp_path)
    [child] = worker.pool()
    os.kill(worker.pid, number)
    is_cold = number == signal.SIGQUIT
    worker.process.says("Cold shutdown" if is_cold else "Warm shutdown")
    if is_cold:
        wait_until(lambda: not child.is_running() or child.status() == "zombie", "its process has stopped")
    server.start()
    assert worker.process.end(0) == 0
    fleet.start("prefork", 1)
    row = final_rows(stack, [run])[run]
    assert (row["status"], row["attempt"], row["error_code"]) == ("completed", 2, None)
    assert len(fleet.ledger.of(run)) == (3 if is_cold else 2)
