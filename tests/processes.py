"""Real processes for tests: Celery workers and bridges, ended with real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge.settings import BridgeSettings
from tests.waiting import PATIENCE, wait_until

SETTINGS = "TASKCAST_TEST_SETTINGS"
BROKER = "TASKCAST_TEST_BROKER"  # where it is not the outbox's Redis
CHECKOUT = Path(__file__).parent.parent


class Process:
    """A child process in its own group, its output in a file."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._file = log.open("ab")
        self._popen = subprocess.Popen(
            list(command), cwd=CHECKOUT, env={**os.environ, **env}, stdout=self._file, stderr=self._file,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self._popen.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str, timeout: float = 2 * PATIENCE) -> None:
        """Wait until the process has printed `text`."""

        def said() -> bool:
            if text in self.output():
                return True
            assert self._popen.poll() is None, (
                f"ended with {self._popen.returncode}:\n{self.output()[-3000:]}"
            )
            return False

        try:
            wait_until(said, f"{self.log.name} says {text!r}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-3000:]}") from None

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """SIGKILL the whole group, as an out-of-memory killer or a pulled plug would."""
        os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def end(self, number: int = signal.SIGTERM, within: float = PATIENCE) -> int:
        """Ask the process to end and wait; what does not end in time is killed and fails the test."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.log.name} did not end:\n{self.output()[-3000:]}") from None
        finally:
            self._file.close()


def environment(settings: BridgeSettings) -> dict[str, str]:
    """What a process of `tests.acceptance.app` needs."""
    plain = settings.model_dump(mode="json")
    if settings.supabase is not None:
        plain["supabase"]["key"] = settings.supabase.key.get_secret_value()

    return {SETTINGS: json.dumps(plain), "PYTHONPATH": str(CHECKOUT)}


@contextmanager
def worker(
    settings: BridgeSettings,
    logs: Path,
    app: str = "tests.acceptance.app",
    pool: str = "prefork",
    concurrency: int = 2,
    name: str = "w1",
    arguments: Sequence[str] = (),
) -> Iterator[Process]:
    """A Celery worker, ready; ended warmly at the block's end."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-P", pool, "-c", str(concurrency)]
    command += ["-n", f"{name}@%h", "-l", "INFO", *arguments]
    process = Process(command, environment(settings), logs / f"{name}.log")
    try:
        process.says(" ready.")
        yield process
    finally:
        process.end()


@contextmanager
def bridge(
    settings: BridgeSettings, logs: Path, app: str = "tests.acceptance.app", name: str = "bridge"
) -> Iterator[Process]:
    """A bridge process."""
    command = [sys.executable, "-m", "celery", "-A", app, "bridge"]
    process = Process(command, environment(settings), logs / f"{name}.log")
    try:
        yield process
    finally:
        process.end()
