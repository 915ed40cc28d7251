"""Ways in which Celery's own tests use it, and which the bridge once got wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from bridge.settings import BridgeSettings, LimitSettings, OutboxSettings
from tests.processes import CHECKOUT, environment
from tests.redis_server import redis_server, url_of


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork"])
def test_a_worker_of_celerys_test_fixtures_keeps_limits_and_gives_up_leases(
    pool: str, tmp_path: Path
) -> None:
    with redis_server(tmp_path / "redis") as server:
        settings = BridgeSettings(
            outbox=OutboxSettings(redis_url=url_of(server)), limits=LimitSettings(lease=timedelta(seconds=1))
        )
        done = subprocess.run(
            [sys.executable, "-m", "tests.acceptance.embedded", pool],
            cwd=CHECKOUT, env={**os.environ, **environment(settings)}, capture_output=True, text=True,
            timeout=90, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    unlimited, limited = json.loads(done.stdout)
    assert unlimited == [number for number, _, _ in limited] == [0, 1, 2]
    assert all(earlier[2] <= later[1] for earlier, later in pairwise(limited))
