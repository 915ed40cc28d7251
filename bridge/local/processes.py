"""One part of the stack as a child process: its own group, its own log, its crash told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO

from bridge.errors import LocalStackError, PartCrashed
from bridge.local.lifeline import Lifeline
from bridge.local.privileges import Account

_TAIL_LINES = 20


@dataclass(frozen=True)
class Command:
    """What to run: the arguments, additions to the environment, and the account to step down to."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    async def spawn(self, output: int | IO[bytes]) -> asyncio.subprocess.Process:
        """Start it in a process group of its own, both outputs going to `output`."""
        account = self.account
        step_down = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        return await asyncio.create_subprocess_exec(
            *self.argv,
            env={**os.environ, **self.env},
            cwd=self.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            **step_down,  # type: ignore[arg-type]
        )

    async def run(self) -> tuple[int, str]:
        """Run it to its end; return the exit code and the output. Cancelling kills it."""
        child = await self.spawn(asyncio.subprocess.PIPE)
        try:
            output, _ = await child.communicate()
        except asyncio.CancelledError:
            kill_group(child.pid)
            await child.wait()
            raise
        assert child.returncode is not None
        return child.returncode, output.decode(errors="replace")


def kill_group(group: int) -> None:
    """SIGKILL to every process of a group that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class Process:
    """A supervised child process."""

    def __init__(
        self, name: str, log: Path, lifeline: Lifeline, on_crash: Callable[[PartCrashed], None]
    ) -> None:
        self.name = name
        self.log = log
        self._lifeline = lifeline
        self._on_crash = on_crash
        self._child: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._command: Command | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self, command: Command) -> None:
        """Start the command; `until_ready` waits for it to answer."""
        self._command = command
        with self.log.open("ab") as log:
            self._child = await command.spawn(log)
        self._lifeline.add(self._child.pid)
        self._watch = asyncio.create_task(self._tell_of_a_crash(self._child))

    async def until_ready(self, answers: Callable[[], Awaitable[bool]], timeout: timedelta) -> None:
        """Wait until `answers()` is true; a child that ends or stays silent raises with its log."""
        assert self._child is not None
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                while not await answers():
                    if self._child.returncode is not None:
                        raise PartCrashed(self.name, self._child.returncode, self.tail())
                    await asyncio.sleep(0.01)
        except TimeoutError:
            problem = f"{self.name} did not answer within {timeout.total_seconds():g} s"
            raise LocalStackError(f"{problem}; its last log lines:\n{self.tail()}") from None

    async def stop(self, grace: timedelta = timedelta(seconds=5)) -> None:
        """Ask the child to end, and kill its group when it does not within `grace`."""
        child, self._child = self._child, None
        if child is None or self._command is None:
            return
        if self._watch is not None:
            self._watch.cancel()
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(self._command.stop_signal)
        try:
            await asyncio.wait_for(child.wait(), grace.total_seconds())
        except TimeoutError:
            kill_group(child.pid)
            await child.wait()
        self._lifeline.drop(child.pid)

    def tail(self) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 20_000))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "(the log is empty)"

    async def _tell_of_a_crash(self, child: asyncio.subprocess.Process) -> None:
        code = await child.wait()
        self._lifeline.drop(child.pid)
        self._on_crash(PartCrashed(self.name, code, self.tail()))
