"""The outbox's Redis hangs or is gone while a worker works, the broker being another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.ports import LOOPBACK, choose_port
from bridge.local.redis import find_redis_server
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import User, settings_on
from tests.database import final_rows, logs, rows
from tests.processes import BROKER, CHECKOUT, bridge, environment, worker
from tests.waiting import PATIENCE, wait_until

PUBLISH = """
import sys
from tests.acceptance.app import fine
for _ in range(int(sys.argv[2])):
    print(fine.delay(sys.argv[1], door=sys.argv[3]).id)
"""


class OutboxRedis:
    """A Redis that can be stopped, paused and gone on with; it keeps what it took."""

    def __init__(self, directory: Path) -> None:
        port = choose_port()
        self.url = f"redis://{LOOPBACK}:{port}/0"
        directory.mkdir()
        options = ["--port", str(port), "--bind", LOOPBACK, "--dir", str(directory), "--appendonly", "yes"]
        self._command = [find_redis_server(), *options]
        self.start()

    def start(self) -> None:
        self._popen = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[OutboxRedis]:
    started = OutboxRedis(tmp_path / "outbox")
    yield started
    started.kill()


@pytest.fixture
def settings(stack: RunningStack, redis: OutboxRedis, monkeypatch: pytest.MonkeyPatch) -> BridgeSettings:
    made = settings_on(stack, f"outage-{os.urandom(4).hex()}")
    monkeypatch.setenv(BROKER, stack.redis_url)
    outbox = made.outbox.model_validate({**made.outbox.model_dump(), "redis_url": redis.url, "timeout": 0.5})
    return made.model_copy(update={"outbox": outbox})


def publish(settings: BridgeSettings, user: User, count: int = 1, door: str = "") -> list[str]:
    """Dispatch runs from a script that ends right after."""
    command = [sys.executable, "-c", PUBLISH, user.id, str(count), door]
    env = {**os.environ, **environment(settings)}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_script_that_ends_right_after_its_dispatch_loses_nothing(
    stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path):
        [run] = publish(settings, user)
        wait_until(lambda: rows(stack, [run]), "the run is shown")
        assert rows(stack, [run])[run]["status"] == "queued"


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_hanging_outbox_holds_up_no_task_and_loses_no_run(
    pool: str, stack: RunningStack, redis: OutboxRedis, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path, pool=pool) as process:
        before = publish(settings, user)
        final_rows(stack, before)
        redis.send(signal.SIGSTOP)
        runs = publish(settings, user, 20)
        wait_until(lambda: process.output().count(" succeeded in ") == 21, "all ran while Redis hung")
        assert not set(rows(stack, runs)) & set(runs)
        redis.send(signal.SIGCONT)
        found = final_rows(stack, runs)
    assert {(row["status"], row["progress"], str(row["user_id"])) for row in found.values()} == {
        ("completed", 100, user.id)
    }


def test_an_outbox_killed_in_the_middle_of_a_run_gets_the_rest_of_it(
    stack: RunningStack, redis: OutboxRedis, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path) as process:
        runs = publish(settings, user, 2, str(tmp_path / "door"))
        wait_until(
            lambda: [row["status"] for row in rows(stack, runs).values()] == ["in_progress"] * 2, "both run"
        )
        redis.kill()
        (tmp_path / "door").touch()
        wait_until(lambda: process.output().count(" succeeded in ") == 2, "both ended meanwhile")
        redis.start()
        found = final_rows(stack, runs)
    assert {row["status"] for row in found.values()} == {"completed"}
    assert [[line["message"] for line in logs(stack, run)] for run in runs] == [["half way, at 2"]] * 2
