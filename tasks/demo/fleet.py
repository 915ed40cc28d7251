"""The demo's processes: two worker pools, the bridge and Flower, each with a log file."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import LocalStackError
from bridge.local.lifeline import Lifeline

log = logging.getLogger(__name__)

_READY_WITHIN = 90.0
_END_WITHIN = 20.0


@dataclass(frozen=True)
class Member:
    """One process: what it is called, its command, and what it says once it is ready."""

    name: str
    command: Sequence[str]
    ready: str


def members(flower_port: int) -> list[Member]:
    """What the demo starts beside the embedded stack."""
    celery = [sys.executable, "-m", "celery", "-A", "tasks"]
    # The topics' libraries are loaded once, before the pool forks.
    include = ["--include", "tasks.demo.probe,tasks.import_socials.topics"]
    io = [*celery, "worker", "-n", "io@%h", "-Q", "default,io", "-P", "threads", "-c", "8", "-l", "INFO"]
    ai = [*celery, "worker", "-n", "ai@%h", "-Q", "ai", "-P", "prefork", "-c", "2", "-l", "INFO"]
    flower = [*celery, "flower", "--conf=config/flower.py", f"--port={flower_port}"]
    return [
        Member("worker io", [*io, *include], " ready."),
        Member("worker ai", [*ai, *include], " ready."),
        Member("bridge", [*celery, "bridge"], "reading partitions"),
        Member("flower", flower, "Registered tasks"),
    ]


class Fleet:
    """Running members; `check()` tells of one that ended by itself."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.pids: dict[str, int] = {}
        self._lifeline = Lifeline()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, member: Member, environment: Mapping[str, str]) -> None:
        """Start a member in a process group of its own, so that Ctrl-C reaches it through us only."""
        with self._log(member.name).open("wb") as log:
            process = subprocess.Popen(
                list(member.command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._lifeline.add(process.pid)
        self._running[member.name] = process
        self.pids[member.name] = process.pid

    def await_ready(self, member: Member) -> None:
        """Wait until a member says that it is ready."""
        deadline = time.monotonic() + _READY_WITHIN
        while member.ready not in self._log(member.name).read_text(errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise LocalStackError(f"{member.name} is not ready yet:\n{self._tail(member.name)}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises LocalStackError, with the last lines of its log, when a member has ended."""
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                raise LocalStackError(f"{name} ended with code {code}:\n{self._tail(name)}")

    def end(self) -> None:
        """End all members, warmly at first."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_WITHIN
        for name, process in self._running.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not end within %.0f s and is killed", name, _END_WITHIN)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._lifeline.end()

    def _log(self, name: str) -> Path:
        return self.logs / f"{name.replace(' ', '-')}.log"

    def _tail(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])


@contextmanager
def fleet(logs: Path) -> Iterator[Fleet]:
    """A fleet that has ended when the block has."""
    logs.mkdir(parents=True, exist_ok=True)
    started = Fleet(logs)
    try:
        yield started
    finally:
        started.end()
