"""The whole system as real processes, each to be hit alone, and started again when it is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from bridge.local import Stack
from bridge.local.realtime.limits import TenantLimits
from bridge.local.running import RunningStack
from bridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    LimitSettings,
    OutboxSettings,
    PublisherSettings,
    SupabaseSettings,
)
from tests.acceptance.chaos.journal import JOURNAL, WORKER
from tests.acceptance.chaos.load import APP
from tests.acceptance.limits.fleet import Server, Worker
from tests.acceptance.limits.proxy import Proxy
from tests.processes import CHECKOUT, Process, environment

CLOCK = "TASKCAST_CHAOS_CLOCK"
HOUR = 3600
POOLS = (("prefork", 4), ("prefork", 3), ("threads", 4))
BRIDGES = 2
RESTARTED_AFTER = 0.3


@dataclass
class Place:
    """A process that a supervisor keeps running, and its own way to Redis (a bridge's: and to Supabase)."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    redis: Proxy
    origin: Proxy | None = None
    process: Process | None = None
    wanted: bool = True
    starts: int = 0
    groups: list[int] = field(default_factory=list)
    _from: int = 0
    _worker: Worker | None = None

    def start(self) -> None:
        self._from = self.log.stat().st_size if self.log.exists() else 0
        self.process = Process(self.command, self.env, self.log)
        self.groups.append(self.process.pid)
        self._worker = Worker(self.process)
        self.starts += 1

    @property
    def worker(self) -> Worker:
        assert self._worker is not None
        return self._worker

    def is_ready(self) -> bool:
        """It lives, and has said since its start that it takes runs."""
        return self.is_alive() and " ready." in self.log.read_text(errors="replace")[self._from :]

    def is_alive(self) -> bool:
        return self.process is not None and self.process._popen.poll() is None

    @property
    def clock(self) -> int:
        """By how many seconds its wall clock is off."""
        return int(self.env.get(CLOCK, "0"))

    def set_clock(self, offset: int) -> None:
        """From its next start on."""
        self.env[CLOCK] = str(offset)

    def end_warmly(self) -> None:
        """As a deployment does; killed when it takes too long, as there."""
        assert self.process is not None
        with suppress(AssertionError):
            self.process.end(within=10)

    def signal(self, number: int, keeper: bool = False) -> None:
        """To its process group; a lease keeper has a group of its own."""
        assert self.process is not None
        if keeper:
            with suppress(psutil.NoSuchProcess, ValueError):
                self.worker.keeper().send_signal(number)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class System:
    """Redis, the stack, workers and bridges; `places` are supervised until the block ends."""

    def __init__(self, folder: Path, stack: RunningStack, redis: Server) -> None:
        self.folder, self.stack, self.redis = folder, stack, redis
        self.journal = folder / "journal"
        self.settings = _settings(redis.url, stack.url, stack.service_key)
        self.places: dict[str, Place] = {}
        self.clients = Proxy(_port(stack.url))
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        for number, (pool, slots) in enumerate(POOLS, 1):
            self._add_worker(f"w{number}", pool, slots)
        for number in range(1, BRIDGES + 1):
            self._add_bridge(f"b{number}")

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[System]:
        (folder / "logs").mkdir(parents=True)
        tenant = TenantLimits(events_per_second=5_000, joins_per_second=1_000)
        with ExitStack() as undo:
            stack = undo.enter_context(Stack.running(folder / "stack", tenant=tenant))
            redis = Server(folder / "redis", durable=True)
            undo.callback(redis.end)
            made = cls(folder, stack, redis)
            undo.callback(made._end)
            for place in made.places.values():
                place.start()
            for place in made.workers():
                assert place.process is not None
                place.process.says(" ready.")
            made._supervisor.start()
            yield made

    def workers(self) -> list[Place]:
        return [place for place in self.places.values() if place.origin is None]

    def bridges(self) -> list[Place]:
        return [place for place in self.places.values() if place.origin is not None]

    def proxies(self) -> list[Proxy]:
        origins = [place.origin for place in self.bridges() if place.origin]
        return [self.clients, *(place.redis for place in self.places.values()), *origins]

    @property
    def clients_url(self) -> str:
        """The origin as clients reach it."""
        return _through(self.stack.url, self.clients)

    def sign_up(self) -> tuple[str, str]:
        """A new user's id and token."""
        answer = httpx.post(
            f"{self.stack.url}/auth/v1/signup", json={}, headers={"apikey": self.stack.anon_key}, timeout=30
        )
        told = answer.raise_for_status().json()
        return told["user"]["id"], told["access_token"]

    def all_up(self) -> bool:
        workers_ready = all(place.is_ready() for place in self.workers())
        return workers_ready and all(place.is_alive() for place in self.bridges())

    def _add_worker(self, name: str, pool: str, slots: int) -> None:
        command = ["worker", "-P", pool, "-c", str(slots), "-n", f"{name}@chaos", "-l", "INFO"]
        self._add(name, command, None)

    def _add_bridge(self, name: str) -> None:
        self._add(name, ["bridge"], Proxy(_port(self.stack.url)))

    def _add(self, name: str, arguments: list[str], origin: Proxy | None) -> None:
        redis = Proxy(self.redis.port)
        url = _through(self.stack.url, origin) if origin else self.stack.url
        env = environment(_settings(redis.url, url, self.stack.service_key))
        env |= {JOURNAL: str(self.journal), WORKER: name}
        env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent / "clock"), str(CHECKOUT)])
        command = [sys.executable, "-m", "celery", "-A", APP, *arguments]
        log = self.folder / "logs" / f"{name}.log"
        self.places[name] = Place(name, command, env, log, redis, origin)

    def _supervise(self) -> None:
        while not self._over.wait(RESTARTED_AFTER):
            for place in self.places.values():
                if place.wanted and not place.is_alive():
                    place.start()

    def _end(self) -> None:
        self._over.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for place in self.places.values():
            place.signal(signal.SIGCONT, keeper=place.origin is None)
            for group in place.groups:  # orphans of killed main processes are among them
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            if place.process is not None:
                place.process.end(signal.SIGKILL)
        for proxy in self.proxies():
            proxy.close()


def _settings(redis_url: str, url: str, key: str) -> BridgeSettings:
    """Short leases, so that what has to happen does so soon."""
    return BridgeSettings(
        outbox=OutboxSettings(redis_url=redis_url, prefix="chaos", partitions=4),
        supabase=SupabaseSettings(url=url, key=key),
        limits=LimitSettings(
            lease=timedelta(seconds=3), grant=timedelta(seconds=1), timeout=timedelta(seconds=1)
        ),
        broadcast=BroadcastSettings(messages_per_second=2_000),
        publisher=PublisherSettings(
            lease=timedelta(seconds=2),
            request_timeout=timedelta(seconds=4),
            max_backoff=timedelta(seconds=2),
        ),
    )


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, proxy: Proxy) -> str:
    return f"http://{urlsplit(url).hostname}:{_port(proxy.url)}"
