"""Ways in which Celery's own tests use it, and which the bridge once got wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge.settings import BridgeSettings, LimitSettings, OutboxSettings
from tests.processes import CHECKOUT, environment
from tests.redis_server import redis_server, url_of

POOLS = ["solo", "threads", "prefork"]


def told_by(scenario: str, pool: str, tmp_path: Path) -> Any:
    """What came of the runs of `tests.acceptance.embedded`, which starts its worker in its own process."""
    with redis_server(tmp_path / "redis") as server:
        settings = BridgeSettings(
            outbox=OutboxSettings(redis_url=url_of(server)), limits=LimitSettings(lease=timedelta(seconds=5))
        )
        done = subprocess.run(
            [sys.executable, "-m", "tests.acceptance.embedded", pool, scenario],
            cwd=CHECKOUT, env={**os.environ, **environment(settings)}, capture_output=True, text=True,
            timeout=150, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_of_celerys_test_fixtures_keeps_limits_and_gives_up_leases(
    pool: str, tmp_path: Path
) -> None:
    unlimited, limited = told_by("limits", pool, tmp_path)
    assert unlimited == [number for number, _, _ in limited] == [0, 1, 2]
    assert all(earlier[2] <= later[1] for earlier, later in pairwise(limited))


@pytest.mark.parametrize("pool", POOLS)
def test_a_signature_that_is_sent_anew_after_its_run_has_ended_runs_again(pool: str, tmp_path: Path) -> None:
    assert told_by("anew", pool, tmp_path) == 3
