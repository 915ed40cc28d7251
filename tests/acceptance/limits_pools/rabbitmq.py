"""A RabbitMQ node of the tests' own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_until

RABBIT = pytest.mark.skipif(
    shutil.which("rabbitmq-server") is None,
    reason="no rabbitmq-server on PATH (apt-get install rabbitmq-server)",
)


class Node:
    """A RabbitMQ node of our own: its files in a folder, its ports free ones, its port mapper private."""

    def __init__(self, folder: Path) -> None:
        self.port, distribution, mapper = _free_ports(3)
        (folder / "plugins").write_text("[].")
        self._name = f"taskcast{self.port}@localhost"
        self._env = os.environ | {
            "HOME": str(folder), "RABBITMQ_NODENAME": self._name, "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"), "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"), "RABBITMQ_PID_FILE": str(folder / "pid"),
        }  # fmt: skip
        self._log = folder / "node.log"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Node]:
        node = cls(folder)
        with node._log.open("wb") as log:
            process = subprocess.Popen(
                [_program("rabbitmq-server")], env=node._env, stdout=log, stderr=log, start_new_session=True
            )
            try:
                wait_until(lambda: "broker... completed" in node._log.read_text(), "RabbitMQ is up", 90)
                yield node
            finally:
                node._control("stop", str(Path(node._env["RABBITMQ_PID_FILE"])))
                process.wait(60)
                wait_until(node._mapper_ended, "the port mapper ends", 20, 0.2)

    def _mapper_ended(self) -> bool:
        told = subprocess.run(["epmd", "-kill"], env=self._env, check=False, capture_output=True, text=True)
        return "Killed" in told.stdout + told.stderr or "Cannot connect" in told.stdout + told.stderr

    def restart(self) -> None:
        """Cut all connections and lose what is not durable."""
        self._control("stop_app")
        self._control("start_app")

    def messages(self) -> int:
        """How many are in all queues, delivered and not acked ones included."""
        told = self._control("list_queues", "-q", "--no-table-headers", "messages")
        return sum(map(int, told.split()))

    def cut(self) -> None:
        """Close all connections: what is not acked is delivered again at once."""
        self._control("close_all_connections", "a test")

    def _control(self, *command: str) -> str:
        told = subprocess.run(
            [_program("rabbitmqctl"), "-n", self._name, *command],
            env=self._env, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout


def _program(name: str) -> str:
    """The program itself: Debian's wrapper on PATH becomes another user, who may not enter the folder."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob(f"rabbitmq_server-*/sbin/{name}"))
    return str(found[-1]) if found else name


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
