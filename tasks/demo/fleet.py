"""The demo's processes: two worker pools, the bridge and Flower, each with a log file."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bridge.errors import LocalStackError
from bridge.local.lifeline import Lifeline

log = logging.getLogger(__name__)

_READY_WITHIN = 90.0
_END_WITHIN = 20.0


@dataclass(frozen=True, eq=False)
class Member:
    """One process: what it is called, its command, and what it says once it is ready."""

    name: str
    command: Sequence[str]
    ready: str


def members(flower_port: int) -> list[Member]:
    """What the demo starts beside the embedded stack."""
    celery = [sys.executable, "-m", "celery", "-A", "tasks"]
    # The topics' libraries are loaded once, before the pool forks; asking for neighbours takes a second.
    common = ["-l", "INFO", "--without-mingle", "--include", "tasks.demo.probe,tasks.import_socials.topics"]
    io = [*celery, "worker", "-n", "io@%h", "-Q", "default,io", "-P", "threads", "-c", "16", *common]
    ai = [*celery, "worker", "-n", "ai@%h", "-Q", "ai", "-P", "prefork", "-c", "2", *common]
    flower = [*celery, "flower", "--conf=config/flower.py", f"--port={flower_port}"]
    return [
        Member("worker io", io, " ready."),
        Member("worker ai", ai, " ready."),
        Member("bridge", [*celery, "bridge"], "reading partitions"),
        Member("flower", flower, "Registered tasks"),
    ]


class Fleet:
    """Running members; `check()` tells of one that ended by itself."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._lifeline = Lifeline()
        self._running: dict[Member, subprocess.Popen[bytes]] = {}

    def start(self, member: Member, environment: Mapping[str, str]) -> None:
        """Start a member in a process group of its own, so that Ctrl-C reaches it through us only."""
        with self._log(member).open("wb") as log:
            process = subprocess.Popen(
                list(member.command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._lifeline.add(process.pid)
        self._running[member] = process

    async def ready(self) -> AsyncIterator[str]:
        """The members' names, each as soon as it says that it is ready."""
        deadline = time.monotonic() + _READY_WITHIN
        waiting = list(self._running)
        while waiting:
            self.check()
            for member in [one for one in waiting if one.ready in self._said(one)]:
                waiting.remove(member)
                yield member.name
            if waiting and time.monotonic() > deadline:
                late = waiting[0]
                raise LocalStackError(
                    f"{late.name} is not ready after {_READY_WITHIN:.0f} s; {self._tail(late)}"
                )
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raises LocalStackError, with the last lines of its log, when a member has ended."""
        for member, process in self._running.items():
            if (code := process.poll()) is not None:
                raise LocalStackError(f"{member.name} ended by itself, {_how(code)}; {self._tail(member)}")

    def end(self) -> None:
        """End all members, warmly at first."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_WITHIN
        for member, process in self._running.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not end within %.0f s and is killed", member.name, _END_WITHIN)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._lifeline.end()

    def _log(self, member: Member) -> Path:
        return self.logs / f"{member.name.replace(' ', '-')}.log"

    def _said(self, member: Member) -> str:
        return self._log(member).read_text(errors="replace")

    def _tail(self, member: Member) -> str:
        lines = "\n".join(self._said(member).splitlines()[-20:])
        return f"the end of {self._log(member)}:\n{lines}"


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """A fleet that has ended when the block has; its logs stay in `folder`."""
    with _own_logs(folder) as logs:
        started = Fleet(logs)
        try:
            yield started
        finally:
            started.end()


@contextmanager
def _own_logs(folder: Path) -> Iterator[Path]:
    """`demo-logs`, or the first of `demo-logs-2`, ... that no other demo is writing."""
    for number in count(1):
        logs = folder / ("demo-logs" if number == 1 else f"demo-logs-{number}")
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (logs / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield logs
            return


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
