"""`make demo` as its user meets it: it keeps its promises, and however it ends, no process is left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.processes import CHECKOUT
from tests.waiting import PATIENCE, wait_until

PROMISE = "Every run completed, every last broadcast equals its row, every post is stored once."


class Demo:
    """A demo, known with all it starts by a mark in the environment; its temporary files in `folder`."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self.mark = f"TASKCAST_TEST_MARK={secrets.token_hex(8)}"
        name, _, value = self.mark.partition("=")
        self.temporary, self._log = folder / "tmp", folder / "demo.log"
        self.temporary.mkdir()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tasks.demo", *arguments], cwd=CHECKOUT, stdout=log, stderr=log,
                env={**os.environ, name: value, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def left(self) -> list[str]:
        """The command lines of living processes that carry the mark."""
        return [command for command in map(self._marked, Path("/proc").glob("[0-9]*")) if command]

    def _marked(self, process: Path) -> str:
        try:
            marked = self.mark.encode() in (process / "environ").read_bytes()
            return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode() if marked else ""
        except OSError:
            return ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own, which the account that Postgres steps down to may not pass through."""
    with TemporaryDirectory(prefix="test-demo-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def demo(*arguments: str, folder: Path) -> Iterator[Demo]:
    """A running demo; killed at the end when it is still there, which its lifelines notice."""
    started = Demo(*arguments, folder=folder)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            os.killpg(started.process.pid, signal.SIGKILL)
            started.process.wait()


@pytest.mark.timeout(400)
def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(folder: Path) -> None:
    with demo("--exit", folder=folder) as shown:
        code = shown.process.wait(5 * PATIENCE)
        assert (code, PROMISE in shown.output()) == (0, True), shown.output()[-3_000:]
        assert shown.left() == []
    assert list(shown.temporary.iterdir()) == []
    assert "Traceback" not in shown.output()
    assert "reddit/frog_and_lantern: the token was refused (401)" in shown.output()


@pytest.mark.timeout(400)
def test_ctrl_c_amid_the_imports_leaves_no_process(folder: Path) -> None:
    with demo(folder=folder) as shown:
        wait_until(lambda: "in_progress" in shown.output(), "an import runs", 3 * PATIENCE)
        os.killpg(shown.process.pid, signal.SIGINT)  # a terminal interrupts the whole group
        assert shown.process.wait(PATIENCE) == 130, shown.output()[-3_000:]
        assert shown.left() == []
    assert list(shown.temporary.iterdir()) == []
    assert "Traceback" not in shown.output()
    assert shown.output().rstrip().endswith("ended; no process is left behind")
