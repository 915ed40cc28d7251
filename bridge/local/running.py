"""The stack as a child process: the sync twin for tests and scripts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from bridge.errors import LocalStackError
from bridge.local.endpoints import Endpoints, HasEndpoints
from bridge.local.realtime import TenantLimits

_STOP_WITHIN_SECONDS = 30


class RunningStack(HasEndpoints):
    """A stack in a child process, reached over its ready line and its control socket."""

    def __init__(self, process: subprocess.Popen[str], endpoints: Endpoints) -> None:
        self.process = process
        self.endpoints = endpoints

    @classmethod
    @contextmanager
    def started(
        cls,
        data_dir: Path | None,
        port: int | None,
        keep: bool,
        tenant: TenantLimits,
        migrations: Sequence[Path],
    ) -> Iterator[RunningStack]:
        """Start `python -m bridge.local`, wait for its ready line, and end it at the block's end."""
        process = subprocess.Popen(
            _command(data_dir, port, keep, tenant, migrations),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for us, who may still need the stack
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        told = _Drain(process.stderr)
        try:
            yield cls(process, _ready(process.stdout, told))
        finally:
            process.stdin.close()
            try:
                process.wait(_STOP_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            told.join()
            process.stdout.close()
            process.stderr.close()

    def stop_part(self, name: str) -> None:
        """Rehearse an outage of "redis", "postgres", "rest" or "realtime"."""
        self._switch(name, "stop")

    def start_part(self, name: str) -> None:
        """End the outage of a part."""
        self._switch(name, "start")

    def _switch(self, name: str, verb: str) -> None:
        import httpx  # here: the stack itself starts sooner without it

        transport = httpx.HTTPTransport(uds=self.endpoints.control)
        with httpx.Client(transport=transport, base_url="http://control", timeout=60) as client:
            answer = client.post(f"/parts/{name}/{verb}")
        if not answer.is_success:
            raise LocalStackError(answer.json()["message"])


class _Drain:
    """Passes the child's errors on to ours and remembers the last lines."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: deque[str] = deque(maxlen=50)
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))
            sys.stderr.write(line)


def _command(
    data_dir: Path | None, port: int | None, keep: bool, tenant: TenantLimits, migrations: Sequence[Path]
) -> list[str]:
    command = [sys.executable, "-m", "bridge.local", "--json", "--end-with-stdin"]
    command += ["--data-dir", str(data_dir)] if data_dir else []
    command += ["--port", str(port)] if port else []
    command += ["--keep"] if keep else []
    command += ["--tenant", json.dumps(_plain(tenant))]
    command += [argument for path in migrations for argument in ("--migrations", str(path))]
    return command


def _ready(stdout: IO[str], told: _Drain) -> Endpoints:
    if line := stdout.readline():
        return Endpoints(**json.loads(line))
    told.join()
    raise LocalStackError("the local stack did not start:\n" + "\n".join(told.lines))


def _plain(tenant: TenantLimits) -> dict[str, float | int | bool]:
    """Times become seconds; `main` turns them back by the field's type."""
    return {
        name: value.total_seconds() if hasattr(value, "total_seconds") else value
        for name, value in asdict(tenant).items()
    }
