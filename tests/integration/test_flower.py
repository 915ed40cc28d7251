"""Flower as operators run it: who may look, who may act, and what is never shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis
from celery import Celery

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings, OutboxSettings
from tests.processes import CHECKOUT, Process, environment, worker
from tests.waiting import wait_until

APP = "tests.acceptance.app"
COMMAND = [sys.executable, "-m", "celery", "-A", APP, "flower", "--conf=config/flower.py"]
PASSWORD = "correct-horse"
REDIS_PASSWORD = "battery-staple"
PERSONAL = "jane.doe@example.org"


@pytest.fixture
def settings(stack: RunningStack, settings: BridgeSettings) -> Iterator[BridgeSettings]:
    """Settings whose Redis asks for a password, so that a leak of it can be seen."""
    with redis.Redis.from_url(stack.redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "operators", "on", f">{REDIS_PASSWORD}", "~*", "&*", "+@all")
        url = stack.redis_url.replace("redis://", f"redis://operators:{REDIS_PASSWORD}@")
        outbox = OutboxSettings(redis_url=url, prefix=settings.outbox.prefix, partitions=4)
        yield settings.model_copy(update={"outbox": outbox})
        admin.execute_command("ACL", "DELUSER", "operators")


@contextmanager
def flower(
    settings: BridgeSettings, logs: Path, env: Mapping[str, str]
) -> Iterator[tuple[httpx.Client, Process]]:
    """Flower, answering, and a client that knows its address only."""
    process = Process(COMMAND, {**environment(settings), "FLOWER_PORT": "0", **env}, logs / "flower.log")
    try:
        process.says("Visit me at")  # it listens by then
        url = re.search(r"Visit me at (http://127\.0\.0\.1:\d+)", process.output())
        assert url is not None
        with httpx.Client(base_url=url[1], timeout=30) as client:
            yield client, process
    finally:
        process.end()


@pytest.fixture
def publisher(settings: BridgeSettings) -> Iterator[Celery]:
    """An app that knows the workers' queue and nothing else of them."""
    prefix = settings.outbox.prefix
    with Celery("elsewhere", broker=settings.outbox.redis_url, set_as_current=False) as app:
        app.conf.update(
            task_default_queue=f"{prefix}-default",
            broker_transport_options={"global_keyprefix": f"{prefix}-"},
        )
        yield app


@pytest.fixture
def authorized() -> tuple[str, str]:
    return ("admin", PASSWORD)


def test_a_run_is_seen_without_its_values_and_no_secret_is(
    publisher: Celery, settings: BridgeSettings, authorized: tuple[str, str], tmp_path: Path
) -> None:
    secret_key = settings.supabase.key.get_secret_value()  # type: ignore[union-attr]
    env = {
        "FLOWER_PASSWORD": PASSWORD,
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SECRET_KEY": secret_key,
    }
    user_id = str(uuid4())
    with (
        flower(settings, tmp_path, env) as (client, process),
        worker(settings, tmp_path, pool="threads", arguments=["-E"]) as at_work,
    ):
        client.auth = authorized
        done = publisher.send_task(f"{APP}.part", kwargs={"number": PERSONAL}).id
        running = publisher.send_task(f"{APP}.fine", (user_id, 200, 0.05))
        publisher.send_task(f"{APP}.part", (PERSONAL,), countdown=3600)

        seen = wait_until(
            lambda: _finished(client, done), "Flower tells of the run's success through its API"
        )
        name = seen["worker"]
        pages = [
            client.get(path).raise_for_status().text
            for path in (
                "/api/tasks",
                f"/api/task/info/{done}",
                f"/api/workers?refresh=1&workername={name}",
                f"/task/{done}",
                f"/worker/{name}",
                "/workers",
                "/broker",
            )
        ]
        shown = "\n".join(pages)
        told = process.output() + at_work.output()
        running.revoke()

    assert (seen["name"], seen["state"]) == (f"{APP}.part", "SUCCESS")
    assert (seen["kwargs"], seen["result"]) == ("number: str", "str")
    assert running.id in shown
    assert "number: str" in shown
    for secret in (PERSONAL, user_id):
        assert secret not in shown
    for secret in (PASSWORD, REDIS_PASSWORD, secret_key):
        assert secret not in shown + told


def _finished(client: httpx.Client, run_id: str) -> dict[str, str] | None:
    found: dict[str, str] = client.get("/api/tasks").raise_for_status().json().get(run_id, {})
    return found if found.get("state") == "SUCCESS" else None


def test_the_right_password_opens_and_no_other_does(
    settings: BridgeSettings, authorized: tuple[str, str], tmp_path: Path
) -> None:
    with flower(settings, tmp_path, {"FLOWER_PASSWORD": PASSWORD}) as (client, _):
        for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
            assert client.get(path).status_code == 401
            assert client.get(path, auth=("admin", "wrong")).status_code == 401
            assert client.get(path, auth=authorized).status_code == 200


@pytest.mark.parametrize(("env", "refusal"), [({}, 401), ({"FLOWER_UNAUTHENTICATED_API": "true"}, 403)])
def test_without_a_password_this_machine_may_look_and_nobody_may_act(
    env: dict[str, str], refusal: int, settings: BridgeSettings, tmp_path: Path
) -> None:
    with flower(settings, tmp_path, env) as (client, _):
        assert client.get("/workers").status_code == 200
        assert client.post(f"/api/task/async-apply/{APP}.fine").status_code == refusal


@pytest.mark.parametrize(
    ("env", "arguments"), [({"FLOWER_ADDRESS": "0.0.0.0"}, ()), ({}, ("--address=0.0.0.0",))]
)
def test_without_a_password_no_other_machine_is_served(
    env: dict[str, str], arguments: tuple[str, ...], settings: BridgeSettings
) -> None:
    ended = subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, **environment(settings), **env},
        cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "taskcast: FLOWER_ADDRESS='0.0.0.0' serves other machines: set FLOWER_PASSWORD\n"
