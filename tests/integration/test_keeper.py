"""The keeper with real processes and a real Redis: who holds a worker's lease, and for how long."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import redis

from bridge.limits.lifeline import Lifeline
from bridge.local.ports import choose_port
from bridge.local.redis import find_redis_server
from tests.processes import CHECKOUT, Process
from tests.waiting import wait_until

KEY = "test:limits:workers"
WORKER = "w1@here"
LEASE = timedelta(seconds=2)

PARENT = """
import ctypes, json, os, signal, sys, time
from datetime import timedelta
url, key, worker, lease = json.loads(os.environ["KEEPER"])
from bridge.limits.lifeline import Lifeline
keeper = Lifeline(url, key, worker, timedelta(seconds=lease))
keeper.start()
"""

APP = """
import json, os, signal, time
from datetime import timedelta
import redis
from celery import Celery, platforms, signals
from bridge.limits.lifeline import Lifeline

url, key, worker, lease = json.loads(os.environ["KEEPER"])
if "NO_PDEATHSIG" in os.environ:  # as on systems other than Linux with glibc
    platforms.set_pdeathsig = lambda name: None
app = Celery("keeper_app", broker=url)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
keeper = Lifeline(url, key, worker, timedelta(seconds=lease))
signals.worker_init.connect(lambda **_: keeper.start(), weak=False)
signals.worker_process_init.connect(lambda **_: keeper.in_pool_process(), weak=False)
signals.worker_shutdown.connect(lambda **_: keeper.stop(), weak=False)

@app.task
def hold(name):
    client = redis.Redis.from_url(url)
    client.set(f"started:{name}", os.getpid())
    while not client.exists(f"go:{name}"):
        time.sleep(0.01)
    client.set(f"ended:{name}", 1)
"""


class Server:
    """A Redis of this test's own, with a password, that forgets all when it ends."""

    def __init__(self, directory: Path) -> None:
        self.password = secrets.token_hex(8)
        self._port, self._directory = choose_port(), directory
        self.url = f"redis://:{self.password}@127.0.0.1:{self._port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        command = [find_redis_server(), "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self._directory), "--requirepass", self.password]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "Redis answers")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def turn_away(self, attempts: int) -> None:
        """Close that many connections as they come."""
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            for _ in range(attempts):
                listening.accept()[0].close()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def score(self) -> float | None:
        """The end of the worker's lease."""
        score: float | None = self.client.zscore(KEY, WORKER)  # type: ignore[assignment]
        return score

    def held(self) -> bool:
        seconds, microseconds = self.client.time()  # type: ignore[misc]
        return (self.score() or 0) > seconds * 1000 + microseconds / 1000

    def given_up(self) -> bool:
        return self.score() == 0

    def is_renewed(self) -> None:
        """See more renewals than fit into one lease, and the lease held at each look."""
        wait_until(self.held, "the lease is held")
        seen: set[float | None] = set()

        def renewed() -> bool:
            assert self.held()
            seen.add(self.score())
            return len(seen) > 7

        wait_until(renewed, "the lease is renewed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.client.close()
    server.end()


@pytest.fixture
def keeper(server: Server) -> Iterator[Lifeline]:
    """A keeper of this very process."""
    keeper = Lifeline(server.url, KEY, WORKER, LEASE)
    keeper.start()
    wait_until(server.held, "the first renewal")
    yield keeper
    keeper.stop()


def environment(server: Server) -> dict[str, str]:
    given = json.dumps([server.url, KEY, WORKER, LEASE.total_seconds()])
    return {"KEEPER": given, "PYTHONPATH": str(CHECKOUT)}


@contextmanager
def parent(server: Server, logs: Path, then: str = "") -> Iterator[Process]:
    """A process with a keeper that goes on with `then`."""
    process = Process([sys.executable, "-c", PARENT + then], environment(server), logs / "parent.log")
    try:
        wait_until(server.held, "the first renewal")
        yield process
    finally:
        process.end(signal.SIGKILL)


@contextmanager
def celery_worker(server: Server, logs: Path, pool: str, *arguments: str, **env: str) -> Iterator[Process]:
    (logs / "keeper_app.py").write_text(APP)
    env = {**environment(server), **env, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{logs}"}
    command = [sys.executable, "-m", "celery", "-A", "keeper_app", "worker", "-P", pool, "-c", "2"]
    process = Process([*command, "-l", "INFO", *arguments], env, logs / "worker.log")
    try:
        process.says(" ready.")
        wait_until(server.held, "the first renewal")
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # pool processes and beat outlive the main one here
        process.end(signal.SIGKILL)


def children(pid: int) -> list[psutil.Process]:
    """Those that live; a test before may have left one that nobody has waited for."""
    return [each for each in psutil.Process(pid).children() if each.status() != psutil.STATUS_ZOMBIE]


def keeper_of(pid: int) -> psutil.Process:
    (found,) = [child for child in children(pid) if "bridge.limits.keeper" in child.cmdline()]
    return found


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill_main(worker: Process) -> None:
    """SIGKILL the main process alone."""
    worker.end(signal.SIGKILL)


# Whatever the worker does, its lease is kept


@pytest.mark.parametrize(
    "body",
    ["ctypes.PyDLL(None).sleep(100)", "os.kill(os.getpid(), signal.SIGSTOP)"],
    ids=["holds the GIL", "is stopped"],
)
def test_a_living_worker_keeps_its_lease(server: Server, tmp_path: Path, body: str) -> None:
    with parent(server, tmp_path, "time.sleep(0.5);" + body) as process:
        state = psutil.STATUS_STOPPED if "SIGSTOP" in body else psutil.STATUS_SLEEPING
        wait_until(lambda: psutil.Process(process.pid).status() == state, "the body has begun")
        server.is_renewed()


def test_signals_that_stop_workers_do_not_stop_the_keeper(server: Server, keeper: Lifeline) -> None:
    process = keeper_of(os.getpid())
    assert os.getpgid(process.pid) != os.getpgid(0)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2"):
        process.send_signal(getattr(signal, name))
    server.is_renewed()
    assert keeper.ensure()


def test_a_killed_keeper_is_started_again_and_leaves_no_zombie(
    server: Server, keeper: Lifeline, caplog: pytest.LogCaptureFixture
) -> None:
    killed = keeper_of(os.getpid())
    killed.kill()
    wait_until(lambda: not keeper.ensure() and not killed.is_running(), "it is missed")
    wait_until(keeper.ensure, "another is there")
    assert keeper_of(os.getpid()).pid != killed.pid
    assert caplog.text.count("starting another") == 1
    server.is_renewed()


def test_a_keeper_that_cannot_live_is_not_started_over_and_over() -> None:
    broken = Lifeline("nonsense://x:hidden@y", KEY, WORKER, timedelta(hours=1))
    broken.start()
    wait_until(lambda: not broken.ensure(), "it ended")
    assert [broken.ensure() for _ in range(3)] == [False] * 3
    broken.stop()


def test_an_emptied_redis_gets_the_lease_back_and_hears_one_line_of_it(
    server: Server, tmp_path: Path
) -> None:
    with parent(server, tmp_path, "time.sleep(100)") as process:
        server.end()
        process.says("Redis does not renew the lease (ConnectionError)")
        server.turn_away(3)
        server.start()
        wait_until(server.held, "the lease is back", timeout=2)
        process.says("Redis did not know this worker")
        said = process.output()
    assert said.count("does not renew") == said.count("is back") == 1
    assert server.password not in said
    assert "127.0.0.1" not in said


def test_a_redis_that_hangs_is_asked_again(server: Server, tmp_path: Path) -> None:
    with parent(server, tmp_path, "time.sleep(100)") as process:
        os.kill(server._process.pid, signal.SIGSTOP)
        process.says("Redis does not renew the lease (TimeoutError)")
        os.kill(server._process.pid, signal.SIGCONT)
        server.is_renewed()


# Nobody alive, no lease


def test_the_lease_of_a_killed_worker_is_given_up_at_once(server: Server, tmp_path: Path) -> None:
    with parent(server, tmp_path, "time.sleep(100)") as process:
        its_keeper = keeper_of(process.pid)
        kill_main(process)
        wait_until(server.given_up, "the lease is given up", timeout=1)
        wait_until(lambda: gone(its_keeper), "the keeper ends", timeout=2)


def test_a_stopped_keeper_gives_the_lease_up_and_leaves_no_zombie(server: Server, keeper: Lifeline) -> None:
    process = keeper_of(os.getpid())
    keeper.stop()
    assert server.given_up()
    assert not process.is_running()
    assert not keeper.ensure()


def test_a_keeper_without_redis_does_not_outlive_its_worker_by_more_than_a_lease(
    server: Server, tmp_path: Path
) -> None:
    with parent(server, tmp_path, "time.sleep(100)") as process:
        its_keeper = keeper_of(process.pid)
        server.end()
        kill_main(process)
        wait_until(lambda: gone(its_keeper), "it gives up", timeout=LEASE.total_seconds() + 2)


def test_a_process_forked_before_the_keeper_was_replaced_still_keeps_the_lease(
    server: Server, tmp_path: Path
) -> None:
    replace = """
child = os.fork()
if not child:
    time.sleep(100)
keeper._process.kill()
keeper._process.wait()
while not keeper.ensure():
    time.sleep(0.05)
print("child", child, flush=True)
time.sleep(100)
"""
    with parent(server, tmp_path, replace) as process:
        process.says("child ")
        child = psutil.Process(int(process.output().split("child ")[1].split()[0]))
        kill_main(process)
        server.is_renewed()
        child.kill()
        wait_until(server.given_up, "the lease is given up", timeout=1)


def test_what_a_body_forks_does_not_keep_the_lease(server: Server, tmp_path: Path) -> None:
    fork = """
keeper.keep_from_forks()
child = os.fork()
if not child:
    time.sleep(100)
print("child", child, flush=True)
time.sleep(100)
"""
    with parent(server, tmp_path, fork) as process:
        process.says("child ")
        child = psutil.Process(int(process.output().split("child ")[1].split()[0]))
        kill_main(process)
        wait_until(server.given_up, "the lease is given up", timeout=1)
        assert not gone(child)
        child.kill()


def test_gevent_delays_neither_the_replacement_nor_the_end(server: Server, tmp_path: Path) -> None:
    turn = """
keeper._process.kill()
while keeper.ensure():
    time.sleep(0.05)
while not keeper.ensure():
    time.sleep(0.05)
time.sleep(1)
process = keeper._process
keeper.stop()
print("ended with", process.returncode, flush=True)
time.sleep(100)
"""
    script = "from gevent import monkey; monkey.patch_all()" + PARENT + turn
    process = Process([sys.executable, "-c", script], environment(server), tmp_path / "parent.log")
    try:
        process.says("ended with 0")
        assert server.given_up()
    finally:
        process.end(signal.SIGKILL)


# Secrets, and where the keeper imports from


def test_the_url_is_in_neither_arguments_nor_environment(server: Server, keeper: Lifeline) -> None:
    process = keeper_of(os.getpid())
    shown = " ".join(process.cmdline()) + json.dumps(process.environ())
    assert server.password not in shown
    assert set(process.environ()) - set(os.environ) <= {"PYTHONPATH"}


def test_the_keeper_imports_from_where_its_parent_did(server: Server, tmp_path: Path) -> None:
    places = [str(CHECKOUT), *(place for place in sys.path if place.endswith("site-packages"))]
    script = f"import sys; sys.path[:0] = {places!r}\n{PARENT}\ntime.sleep(100)"
    env = {**environment(server), "PYTHONPATH": ""}
    python = sys._base_executable  # type: ignore[attr-defined]  # knows nothing of the environment's packages
    process = Process([python, "-S", "-c", script], env, tmp_path / "parent.log")
    try:
        wait_until(server.held, "the first renewal")
    finally:
        process.end(signal.SIGKILL)


# Real workers


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_worker_has_a_keeper_until_its_warm_end(server: Server, tmp_path: Path, pool: str) -> None:
    with celery_worker(server, tmp_path, pool) as worker:
        its_keeper = keeper_of(worker.pid)
        server.is_renewed()
        worker.end(signal.SIGTERM)
        wait_until(server.given_up, "the lease is given up", timeout=2)
        wait_until(lambda: gone(its_keeper), "the keeper ends", timeout=2)


@pytest.mark.parametrize("arguments", [[], ["-B", "-s", "schedule"]], ids=["", "with beat"])
def test_pool_processes_die_with_a_killed_worker_and_with_them_the_lease(
    server: Server, tmp_path: Path, arguments: list[str], send: Callable[[str], int]
) -> None:
    arguments = [str(tmp_path / word) if word == "schedule" else word for word in arguments]
    with celery_worker(server, tmp_path, "prefork", *arguments) as worker:
        busy = psutil.Process(send("one"))
        kill_main(worker)
        wait_until(server.given_up, "the lease is given up", timeout=1)
        wait_until(lambda: gone(busy), "its process is gone", timeout=2)  # its files were closed before


def test_where_pool_processes_outlive_their_worker_the_lease_is_kept_until_the_last_run_ended(
    server: Server, tmp_path: Path, send: Callable[[str], int]
) -> None:
    with celery_worker(server, tmp_path, "prefork", NO_PDEATHSIG="1") as worker:
        pool = [child for child in children(worker.pid) if child != keeper_of(worker.pid)]
        busy = psutil.Process(send("one"))
        (idle,) = [child for child in pool if child != busy]
        kill_main(worker)
        wait_until(lambda: gone(idle), "the idle process ends")
        server.is_renewed()
        assert not gone(busy)
        server.client.set("go:one", 1)
        wait_until(server.given_up, "the lease is given up")
        assert server.client.exists("ended:one")
        wait_until(lambda: gone(busy), "its process is gone", timeout=2)  # its files were closed before


@pytest.fixture
def send(server: Server) -> Callable[[str], int]:
    """Send a run that holds until `go:<name>`; returns the process that executes it."""
    from celery import Celery

    def one(name: str) -> int:
        with Celery("sender", broker=server.url, set_as_current=False) as app:
            app.send_task("keeper_app.hold", [name])
        return int(wait_until(lambda: server.client.get(f"started:{name}"), "it executes"))  # type: ignore[arg-type]

    return one
