"""Redis servers and Celery workers of a test's own, to be stopped, paused and killed in parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from bridge.local.ports import LOOPBACK, choose_port
from bridge.local.redis import find_redis_server
from bridge.settings import BridgeSettings
from tests.acceptance.limits.ledger import LEDGER, Ledger, now
from tests.processes import BROKER, Process, environment
from tests.waiting import wait_until

APP = "tests.acceptance.limits.app"


class Server:
    """A Redis; what it kept on disk is there again after a restart, if it is `durable`, or says how."""

    def __init__(self, directory: Path, durable: bool | str = False) -> None:
        directory.mkdir()
        port = choose_port()
        self.url = f"redis://{LOOPBACK}:{port}/0"
        options = ["--port", str(port), "--bind", LOOPBACK, "--dir", str(directory), "--save", ""]
        how = durable if isinstance(durable, str) else "always"
        options += ["--appendonly", "yes", "--appendfsync", how] if durable else []
        self._command = [find_redis_server(), *options]
        self.port = port
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        self._popen = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, f"Redis answers at {self.url}")

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def end(self) -> None:
        self.kill()
        self.client.close()

    def _answers(self) -> bool:
        try:
            told: Any = self.client.info("server")
        except redis.RedisError:
            return False
        assert told["process_id"] == self._popen.pid, f"another program's Redis answers at {self.url}"
        return True


class Worker:
    """One worker, and ways to kill it."""

    def __init__(self, process: Process) -> None:
        self.process, self.pid = process, process.pid
        self._keeper: psutil.Process | None = None

    def is_ready(self) -> bool:
        return " ready." in self.process.output()

    def keeper(self) -> psutil.Process:
        """The process that renews its lease; found while the worker lives."""
        return wait_until(self.known_keeper, "its lease has a keeper")

    def known_keeper(self) -> psutil.Process | None:
        """The same, if there is one."""
        if self._keeper is None:
            of_worker = psutil.Process(self.pid).children()
            self._keeper = next(filter(_keeps_lease, of_worker), None)
        return self._keeper

    def pool(self) -> list[psutil.Process]:
        keeper = self.keeper()
        return [each for each in psutil.Process(self.pid).children() if each != keeper]

    def kill(self, how: str, pool: Sequence[psutil.Process] = ()) -> float:
        """SIGKILL the worker's "parent" alone, its "group", the group and the keeper (a pulled "plug"), or
        each "child" that is given; returns when.
        """
        keeper = self.keeper()
        at = now()
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if how == "plug":
                keeper.kill()
            if how == "child":
                for child in pool:
                    child.kill()
            elif how == "parent":
                os.kill(self.pid, signal.SIGKILL)
            else:
                os.killpg(self.pid, signal.SIGKILL)
        if how != "child":
            self.process.end(signal.SIGKILL)
        return at


def _keeps_lease(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # which a zombie is to psutil, too
        return "bridge.limits.keeper" in process.cmdline()
    return False


class Fleet:
    """Workers of one app with one ledger."""

    def __init__(
        self, settings: BridgeSettings, folder: Path, broker: str | None = None, app: str = APP
    ) -> None:
        self.settings, self._folder, self._app = settings, folder, app
        self.ledger = Ledger(folder / "ledger")
        self.env = {**environment(settings), LEDGER: self.ledger.path}
        if broker:
            self.env[BROKER] = broker
        self.workers: list[Worker] = []
        self._ended: set[int] = set()

    def launch(self, pool: str = "prefork", concurrency: int = 2, *arguments: str) -> Worker:
        """Start a worker; does not wait until it is ready."""
        name = f"w{len(self.workers) + 1}"
        command = [sys.executable, "-m", "celery", "-A", self._app, "worker"]
        command += [
            "-P",
            pool,
            "-c",
            str(concurrency),
            "-n",
            f"{name}@%h",
            "-l",
            "INFO",
            "--without-gossip",
            "--without-mingle",
            *arguments,
        ]
        worker = Worker(Process(command, self.env, self._folder / f"{name}.log"))
        self.workers.append(worker)
        return worker

    def start(self, pool: str = "prefork", concurrency: int = 2, *arguments: str) -> Worker:
        worker = self.launch(pool, concurrency, *arguments)
        worker.process.says(" ready.")
        return worker

    def end(self) -> None:
        """End all that still live, in whatever state a test has left them."""
        for worker in self.workers:
            keeper = None
            with suppress(psutil.NoSuchProcess):
                keeper = worker.known_keeper()
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.process.end(signal.SIGKILL)
            if keeper is not None:
                with suppress(psutil.NoSuchProcess):
                    keeper.kill()

    def go(self, name: str) -> None:
        """Let the bodies of this name end."""
        (self._folder / f"go-{name}").touch()

    def has(self, name: str) -> bool:
        """Whether a body has left this."""
        return (self._folder / f"go-{name}").exists()

    def output(self) -> str:
        return "\n".join(worker.process.output() for worker in self.workers)
