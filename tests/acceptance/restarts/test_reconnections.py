"""What a worker keeps of its broker's connection, it keeps of the next one, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.limits.proxy import Proxy
from tests.acceptance.restarts.conftest import Post
from tests.waiting import wait_until

APP = "tests.acceptance.restarts.counting"
RUNS = 20


@pytest.fixture
def fleet(settings: BridgeSettings, proxy: Proxy, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that reach Redis through the proxy alone."""
    outbox = settings.outbox.model_copy(update={"redis_url": proxy.url})
    made = Fleet(settings.model_copy(update={"outbox": outbox}), tmp_path, app=APP)
    yield made
    made.end()


def made_for(post: Post, fleet: Fleet, runs: int) -> int:
    """How many Redis clients the worker makes to execute so many runs, and to tell of it."""

    def made() -> int:
        ask = post.app.control.inspect(timeout=2, limit=1)
        told: dict[str, int] = wait_until(lambda: ask._request("clients_made"), "the worker answers")
        [number] = told.values()
        return number

    before = made()
    sent = [post.send("plain", "", 0) for _ in range(runs)]
    wait_until(lambda: all(fleet.ledger.ends()[run] for run in sent), "they have executed")
    return made() - before


def test_no_client_of_redis_is_made_for_a_run_after_a_reconnection_either(
    fleet: Fleet, post: Post, proxy: Proxy
) -> None:
    worker = fleet.start("prefork", 1)
    made_for(post, fleet, RUNS)
    idle, busy = made_for(post, fleet, 0), made_for(post, fleet, RUNS)
    assert busy < idle + RUNS / 2
    proxy.cut()
    wait_until(lambda: worker.process.output().count("Connected to redis") == 2, "it is connected again")
    made_for(post, fleet, RUNS)
    print(f"\nclients made: idle {idle}, for {RUNS} runs {busy}, after {made_for(post, fleet, RUNS)}")
    assert made_for(post, fleet, RUNS) < idle + RUNS / 2
