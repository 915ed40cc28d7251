"""Starting, crashing and ending the embedded stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
import redis

from bridge.errors import LocalStackError, PartCrashed
from bridge.local import Stack
from bridge.local.endpoints import Endpoints
from bridge.local.running import RunningStack
from tests.waiting import eventually, wait_until


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def part(pid: int, name: str) -> psutil.Process:
    return next(process for process in psutil.Process(pid).children() if name in process.name())


def redis_of(url: str) -> psutil.Process:
    """The Redis behind an address, among those that this test run has started."""
    port = str(urlsplit(url).port)
    servers = (each for each in psutil.Process().children() if "redis-server" in each.name())
    return next(each for each in servers if any(port in word for word in each.cmdline()))


def test_the_ready_line_tells_where_everything_is(stack: RunningStack) -> None:
    assert httpx.get(f"{stack.url}/auth/v1/health").is_success
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute("select current_user, extversion from pg_extension where extname='vector'")
        assert row.fetchone()[0] == "postgres"  # type: ignore[index]
    assert {"postgres.log", "redis.log", "rest.log"} <= set(os.listdir(stack.endpoints.logs))


def test_only_loopback_is_listened_on(stack: RunningStack) -> None:
    addresses = set()
    for process in [psutil.Process(stack.endpoints.pid), *descendants(stack.endpoints.pid)]:
        with suppress(psutil.NoSuchProcess):  # one of Postgres' that has ended meanwhile
            connections = process.net_connections("inet")
            addresses |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


async def test_a_second_stack_runs_beside_the_first_and_tells_of_a_crash(stack: RunningStack) -> None:
    crash: PartCrashed
    async with Stack() as second:
        assert second.url != stack.url
        assert second.redis_url != stack.redis_url
        assert second.database_url != stack.database_url
        async with httpx.AsyncClient(base_url=second.url) as client:
            answer = await client.get("/rest/v1/", headers={"apikey": second.secret_key})
        assert answer.is_success
        victim = redis_of(second.redis_url)
        victim.kill()
        with pytest.raises(PartCrashed, match="redis ended by itself with exit code -9") as told:
            await second.wait()
        crash = told.value
    assert (crash.part, crash.exit_code) == ("redis", -signal.SIGKILL)
    assert "Ready to accept connections" in crash.log_tail
    await eventually(lambda: not psutil.pid_exists(victim.pid), "the process is reaped")


@pytest.mark.parametrize("name", ["redis", "rest", "realtime", "postgres"])
def test_an_outage_can_be_rehearsed(stack: RunningStack, name: str) -> None:
    client = redis.Redis.from_url(stack.redis_url)
    headers = {"apikey": stack.secret_key}

    def connects() -> bool:
        psycopg.connect(stack.database_url).close()
        return True

    def works() -> bool:
        asked = {
            "redis": lambda: client.ping(),
            "rest": lambda: httpx.get(f"{stack.url}/rest/v1/", headers=headers).is_success,
            "realtime": lambda: (
                httpx.post(f"{stack.url}/realtime/v1/api/broadcast", headers=headers).status_code == 422
            ),
            "postgres": connects,
        }
        try:
            return bool(asked[name]())
        except (redis.ConnectionError, psycopg.OperationalError):
            return False

    client.set("outage", name)
    stack.stop_part(name)
    assert not works()
    with pytest.raises(LocalStackError, match="stopped already"):
        stack.stop_part(name)
    stack.start_part(name)
    wait_until(works, f"{name} is back")
    assert httpx.post(f"{stack.url}/auth/v1/signup", json={}).is_success
    assert client.get("outage") == name.encode()
    client.delete("outage")
    client.close()


def test_parts_that_do_not_exist_are_named(stack: RunningStack) -> None:
    with pytest.raises(LocalStackError, match="no part is called 'kafka'; the parts are redis"):
        stack.stop_part("kafka")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that the account of Postgres reaches too, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_the_death_of_the_parent_leaves_no_process_and_good_data_behind(reachable: Path) -> None:
    child = started("--json", "--data-dir", str(reachable / "data"))
    endpoints = Endpoints(**json.loads(child.stdout.readline()))  # type: ignore[union-attr]
    with psycopg.connect(endpoints.database_url) as connection:
        connection.execute("create table public.survived (n int)")
    left = descendants(child.pid)
    assert {"redis-server", "postgres", "postgrest"} <= {process.name() for process in left}
    child.send_signal(signal.SIGKILL)
    child.communicate()

    def restarted() -> bool:
        try:
            with Stack.running(data_dir=reachable / "data") as again:
                headers = {"apikey": again.secret_key}
                return httpx.get(f"{again.url}/rest/v1/survived", headers=headers).text == "[]"
        except LocalStackError as error:
            # The parts of the dead one may still be ending, and keep others from their data till then.
            if "another stack uses" not in str(error):
                raise
            return False

    assert wait_until(restarted, "the data is free again")
    wait_until(lambda: not any(map(alive, left)), "every part has ended")
    wait_until(lambda: not Path(endpoints.control).parent.exists(), "the temporary files are removed")


def test_ctrl_c_ends_everything_and_kept_data_is_there_again(reachable: Path) -> None:
    data = reachable / "data"
    with Stack.running(data_dir=data) as first:
        with psycopg.connect(first.database_url) as connection:
            connection.execute("create table public.kept (n int); insert into public.kept values (7)")
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
        with pytest.raises(LocalStackError, match="another stack uses"), Stack.running(data_dir=data):
            pass
        left = descendants(first.endpoints.pid)
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(20) == 0
        wait_until(lambda: not any(map(alive, left)), "every part has ended")
    with Stack.running(data_dir=data) as second:
        rows = httpx.get(f"{second.url}/rest/v1/kept", headers={"apikey": second.secret_key})
        assert rows.json() == [{"n": 7}]
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.get("kept") == b"yes"


def test_a_crash_ends_the_command_with_the_log_and_a_failing_code() -> None:
    child = started("--json")
    Endpoints(**json.loads(child.stdout.readline()))  # type: ignore[union-attr]
    part(child.pid, "postgrest").kill()
    _, told = child.communicate(timeout=20)
    assert child.returncode == 1
    assert "local stack: rest ended by itself with exit code -9; its last log lines:" in told


def test_a_wrong_migration_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    wrong = tmp_path / "29990101000000_wrong.sql"
    wrong.write_text("create table public.fine (n int);\n\nselect 1,\n  2 from nowhere;\n")
    told = rf"{wrong}:4: relation \"nowhere\" does not exist"
    with pytest.raises(LocalStackError, match=told), Stack.running(migrations=[tmp_path]):
        pass


def test_a_port_that_is_taken_is_told(stack: RunningStack) -> None:
    taken = stack.url.rpartition(":")[2]
    child = started("--port", taken)
    _, told = child.communicate(timeout=20)
    assert child.returncode == 1
    assert f"port {taken} cannot be used" in told


def started(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bridge.local", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
