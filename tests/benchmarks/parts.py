"""What the benchmarks of limits share: a Redis of their own, workers, percentiles."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from statistics import quantiles

import psutil
import redis

from bridge.limits.scripts import LimitScripts
from bridge.local.ports import choose_port
from bridge.local.redis import find_redis_server
from tests.waiting import wait_until

LEASE = timedelta(minutes=1)
APP = "tests.benchmarks.limits_app"


@contextmanager
def redis_server() -> Iterator[redis.Redis]:
    """A Redis that keeps nothing on disk."""
    port = choose_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
        popen = subprocess.Popen([find_redis_server(), *options], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(url_of(port))
        try:
            wait_until(lambda: answers(client), "Redis answers")
            yield client
        finally:
            client.close()
            popen.terminate()
            popen.wait(30)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def url_of(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def environment(client: redis.Redis, plain: bool = False, log: str = "") -> dict[str, str]:
    """What a process of the app needs, on a queue and a prefix of its own."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    if not plain:  # else a Redis that knows nothing lets nobody in for one lease
        LimitScripts(client, queue).declare({}, LEASE, LEASE, nothing_runs=True)
    return {
        **os.environ,
        "PYTHONPATH": os.getcwd(),
        "BENCH_REDIS": url_of(client.connection_pool.connection_kwargs["port"]),
        "BENCH_QUEUE": queue,
        "BENCH_PLAIN": "1" if plain else "",
        "BENCH_LOG": log,
    }


@contextmanager
def worker(
    env: dict[str, str], slots: int, name: str = "w", arguments: Sequence[str] = (), app: str = APP
) -> Iterator[psutil.Process]:
    """A prefork worker that is ready."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-c", str(slots), "-n", f"{name}@%h"]
    command += ["-l", "INFO", "--without-gossip", "--without-mingle", *arguments]
    with tempfile.TemporaryFile() as output:
        popen = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: b" ready." in _read(output.fileno()), "the worker is ready", 60)
            yield psutil.Process(popen.pid)
        finally:
            popen.terminate()
            popen.wait(60)


def _read(file: int) -> bytes:
    return os.pread(file, 10**6, 0)


def publish(env: dict[str, str], task: str, count: int, queue: str | None = None) -> None:
    """Publish `count` runs of a task of the app."""
    code = (
        f"from {APP} import {task} as task, queue\n"
        f"for _ in range({count}): task.apply_async(queue={queue!r} or queue)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the 95th and the 99th percentile."""
    cuts = quantiles(values, n=100)
    return cuts[49], cuts[94], cuts[98]


def machine(client: redis.Redis) -> str:
    version = client.info("server")["redis_version"]
    return f"{psutil.cpu_count()} CPUs, load {psutil.getloadavg()[0]:.1f}, Redis {version}"
