"""What a person who made a mistake reads: one line that names it and the remedy, and never a traceback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from bridge.local.running import RunningStack
from config.settings import Settings
from tests.processes import CHECKOUT, Process
from tests.waiting import PATIENCE, wait_until

NOBODY = "http://127.0.0.1:1"
WRONG_KEY = "sb_secret" + "_of_another_project"
SETTINGS = {name.upper(): "" for name in Settings.model_fields}


def celery(*arguments: str, app: str = "tasks") -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, *arguments]


def ended(
    *arguments: str, env: Mapping[str, str] | None = None, app: str = "tasks"
) -> tuple[int, str, list[str]]:
    """Exit code, stdout and the lines on stderr of a command that ends by itself."""
    whole = {**os.environ, **SETTINGS, "PYTHONPATH": str(CHECKOUT), **(env or {})}
    done = subprocess.run(
        celery(*arguments, app=app), env=whole, cwd=CHECKOUT, capture_output=True, text=True,
        timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line.strip()]


@contextmanager
def running(*arguments: str, env: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A command that goes on until it is interrupted."""
    process = Process(celery(*arguments), {**SETTINGS, **env}, log)
    try:
        yield process
    finally:
        process.end(signal.SIGINT)
    assert "Traceback" not in process.output()


def on(stack: RunningStack, key: str | None = None) -> dict[str, str]:
    return {
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.service_key if key is None else key,
        "REDIS_URL": stack.redis_url,
    }


@pytest.mark.parametrize("command", [("bridge",), ("watch", "import-socials-1")])
def test_without_a_supabase_the_variables_to_set_are_named(command: tuple[str, ...]) -> None:
    code, _, told = ended(*command)
    assert code == 1
    assert told == [
        "taskcast: set SUPABASE_URL and SUPABASE_SECRET_KEY (sb_secret_...), in the environment or .env"
    ]


@pytest.mark.parametrize("kind", ["wrong", "anon", "publishable"])
@pytest.mark.parametrize("command", [("bridge",), ("watch", "import-socials-1")])
def test_a_key_that_cannot_work_ends_the_command_with_the_variable_and_is_not_shown(
    command: tuple[str, ...], kind: str, stack: RunningStack
) -> None:
    key = {"wrong": WRONG_KEY, "anon": stack.anon_key, "publishable": stack.publishable_key}[kind]
    code, _, told = ended(*command, env=on(stack, key))
    assert code == 1
    assert len(told) == (2 if kind == "publishable" else 1)  # wrong settings have a heading
    assert "SUPABASE_SECRET_KEY" in told[-1]
    assert "sb_secret_..." in told[-1]
    assert key not in "".join(told)


@pytest.mark.parametrize("change", ["missing", "old"])
def test_a_database_without_our_migrations_is_told_with_the_command_that_applies_them(
    change: str, stack: RunningStack
) -> None:
    with changed_schema(stack, change):
        code, _, told = ended("bridge", env=on(stack))
    assert code == 1
    assert len(told) == 1
    assert told[0].endswith(f"apply the migrations: supabase --workdir {CHECKOUT / 'bridge'} db push")
    assert ("has version 0" in told[0]) == (change == "old")


def test_a_bridge_waits_for_supabase_says_so_once_and_goes_on(stack: RunningStack, tmp_path: Path) -> None:
    stack.stop_part("rest")
    try:
        with running("bridge", env=on(stack), log=tmp_path / "bridge.log") as process:
            process.says("the bridge waits for it")
            stack.start_part("rest")
            process.says("supabase is back")
            process.says("reading partitions")
            outage = process.output().split("supabase is back")[0]
            told = re.findall(r"supabase: (.*); the bridge waits for it", outage)
            assert len(told) == len(set(told)), "each reason: PostgREST has one of its own while it starts"
    finally:
        wait_until(lambda: _version_answer(stack) == 200, "REST is back")


@pytest.mark.parametrize(("command", "word"), [("bridge", "redis:"), ("worker", "Cannot connect to redis")])
def test_a_redis_that_is_away_is_waited_for(
    command: str, word: str, stack: RunningStack, tmp_path: Path
) -> None:
    env = on(stack) | {"REDIS_URL": "redis://127.0.0.1:1/0"}
    with running(command, env=env, log=tmp_path / "process.log") as process:
        process.says(word)
        assert "127.0.0.1:1" in process.output()


def test_watching_tells_an_outage_once(stack: RunningStack, tmp_path: Path) -> None:
    env = on(stack) | {"SUPABASE_URL": NOBODY}
    with running("watch", "import-socials-1", env=env, log=tmp_path / "watch.log") as process:
        process.says(f"no answer from {NOBODY}")
    assert len(process.output().splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("concurency=5", "unknown option `concurency`; did you mean `concurrency`?"),
        (
            "channel='shop-{usr_id}'",
            "channel='shop-{usr_id}' names the missing argument `usr_id`; did you mean `user_id`?",
        ),
    ],
)
def test_a_wrong_declaration_is_the_last_line_that_a_starting_worker_prints(
    option: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "from celery import Celery\nfrom bridge import Bridge, BridgeSettings\n"
        "app = Celery('shop')\nBridge(app, BridgeSettings())\n"
        f"@app.task(bind=True, {option})\ndef pay(self, user_id): ...\n"
    )
    code, _, told = ended("worker", env={"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}, app="shop")
    assert code != 0
    assert told[-1] == f"bridge.errors.DeclarationError: task shop.pay: {message}"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("local", "--port", "99999"), 2, "--port: '99999' is no port; give a number from 1 to 65535"),
        (("local", "--migrations", "/no/such"), 2, "--migrations: '/no/such' is no directory"),
        (
            ("local", "--data-dir", "/dev/null/data"), 1,
            "local stack: /dev/null/data cannot be used (Not a directory); "
            "choose another directory with --data-dir",
        ),
        (("demo", "--recordings", "/no/such"), 2, "--recordings /no/such: there is no such directory"),
        (("watch", ""), 2, "CHANNEL: is empty; name a channel, such as import-socials-<user>"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_in_the_last_line(
    arguments: tuple[str, ...], code: int, message: str, stack: RunningStack
) -> None:
    found, _, told = ended(*arguments, env=on(stack))
    assert found == code
    assert told[-1].endswith(message)
    assert not any(line.startswith("Traceback") for line in told)


def test_a_taken_port_is_told_before_anything_starts() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, _, told = ended("local", "--port", str(port))
    remedy = "choose another or none at all"
    assert (code, told) == (
        1,
        [f"local stack: port {port} cannot be used (Address already in use); {remedy}"],
    )


@pytest.mark.parametrize("command", ["local", "demo", "bridge", "watch"])
def test_every_command_explains_itself(command: str) -> None:
    code, told, complaints = ended(command, "--help")
    assert (code, complaints) == (0, [])
    assert told.lower().startswith("usage:")


@contextmanager
def changed_schema(stack: RunningStack, change: str) -> Iterator[None]:
    """The version function of the bridge's tables away, or that of an older version."""
    sql = {
        "missing": "alter function taskcast_schema_version() rename to taskcast_schema_version_away",
        "old": "create or replace function taskcast_schema_version() returns integer return 0",
    }
    back = "alter function taskcast_schema_version_away() rename to taskcast_schema_version"
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        found = connection.execute("select pg_get_functiondef('taskcast_schema_version'::regproc)").fetchone()
        assert found is not None
        try:
            connection.execute(sql[change])  # type: ignore[call-overload]
            connection.execute("notify pgrst, 'reload schema'")
            if change == "missing":
                wait_until(lambda: _version_answer(stack) == 404, "REST has seen the change")
            yield
        finally:
            connection.execute(back if change == "missing" else found[0])
            connection.execute("notify pgrst, 'reload schema'")
            wait_until(lambda: _version_answer(stack) == 200, "REST has seen the change")


def _version_answer(stack: RunningStack) -> int:
    headers = {"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"}
    answer = httpx.post(
        f"{stack.url}/rest/v1/rpc/taskcast_schema_version", json={}, headers=headers, timeout=30
    )
    return answer.status_code
