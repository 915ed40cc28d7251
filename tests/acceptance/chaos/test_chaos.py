"""`make chaos` in short: every class of faults at least once, and nothing is lost, doubled or wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.chaos.faults import KINDS

SEED = 4
MINUTES = 0.7


@pytest.mark.timeout(300)
def test_faults_of_every_class_lose_no_run_double_none_and_leave_no_row_or_client_wrong(
    tmp_path: Path, checkout: Path
) -> None:
    command = [sys.executable, "-m", "tests.acceptance.chaos", "--seed", str(SEED), "--folder", str(tmp_path)]
    command += ["--minutes", str(MINUTES), "--pause", "0.5"]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    table = re.findall(r"^([a-z-]+) +(\d+) +(\d+) +0 +0 +0 ", done.stdout, re.MULTILINE)
    assert {name for name, *_ in table} == {*KINDS, "all"}
    assert all(int(faults) >= 1 for _, faults, _ in table)
    assert int(table[-1][2]) > 100, "runs"
