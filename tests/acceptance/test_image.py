"""The image, built from this checkout, run as it is deployed: read-only, without rights, beside a Redis."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest
import redis
from celery import Celery
from docker.errors import DockerException
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBackend,
    RedisTestBroker,
)
from pytest_docker_tools import build, container, fxtr, volume

from bridge.events import Patch, decode
from bridge.outbox import ENTRY_FIELD
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
]

CHECKOUT = Path(__file__).parents[2]
BASE_IMAGES = ("python:3.11-slim-bookworm", "redis:7-alpine")
PIP_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")

# One more task on the deployment's own app, written as a user would.
SMOKE = b"""
import os
from tasks.celery import app

@app.task(bind=True, channel="smoke-{user_id}", public_result=True)
def look_around(self, user_id):
    self.progress(1, 2, "Looking around")
    written = []
    for place in ("/app", "/venv", "/smoke", "/"):
        try:
            open(os.path.join(place, "written"), "w").close()
            written.append(place)
        except OSError:
            pass
    return {"user": os.getuid(), "application": sorted(os.listdir("/app")), "written": written}
"""


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skips where no image can be built or run."""
    with warnings.catch_warnings():
        # The Docker client leaves the socket open on which no engine answered.
        warnings.simplefilter("ignore", ResourceWarning)
        problem = _problem()
        gc.collect()
    if problem:
        pytest.skip(f"no Docker engine, or no base image: {problem}")


def _problem() -> str | None:
    try:
        with closing(docker.from_env()) as client:
            for image in BASE_IMAGES:
                _pull_unless_there(client, image)
    except (DockerException, OSError) as error:
        return str(error).splitlines()[0][:120]
    return None


def _pull_unless_there(client: Any, image: str) -> None:
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        client.images.pull(image)


EVERY_MODULE = """
import importlib, pkgutil, tasks
for module in pkgutil.walk_packages(tasks.__path__, "tasks."):
    importlib.import_module(module.name)
"""

# pytest-celery's components, with our image in the place of its own and one Redis as broker and backend.


class Worker(CeleryWorkerContainer):
    """A worker of the deployment's app for all of its queues."""

    @classmethod
    def worker_queue(cls) -> str:
        return "default,io,ai"

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return [
            "celery",
            "-A",
            "smoke",
            "worker",
            "--concurrency=2",
            "-Q",
            cls.worker_queue(),
            "-l",
            "INFO",
            *args,
        ]


celery_base_worker_image = build(
    path=str(CHECKOUT),
    tag="taskcast:test",
    buildargs={name: os.environ[name] for name in PIP_ARGUMENTS if name in os.environ},
)
smoke_volume = volume(initial_content={"smoke.py": SMOKE})
default_worker_container = container(
    image="{celery_base_worker_image.id}",
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes={"{smoke_volume.name}": {"bind": "/smoke", "mode": "ro"}},
    read_only=True,
    tmpfs={"/tmp": ""},
    cap_drop=["ALL"],
    security_opt=["no-new-privileges:true"],
    init=True,
    wrapper_class=Worker,
    timeout=60,
    command=fxtr("default_worker_command"),
)


@pytest.fixture
def default_worker_container_cls() -> type[Worker]:
    return Worker


@pytest.fixture
def default_worker_env(celery_worker_cluster_config: dict[str, Any]) -> dict[str, str]:
    (url,) = celery_worker_cluster_config["celery_broker_cluster_config"]["urls"]
    return {"REDIS_URL": url, "PYTHONPATH": "/app:/smoke"}


class Redis(RedisContainer):
    """A Redis that is reached also by tests that run in a container beside it."""

    @property
    def host_url(self) -> str:
        host, port = self.get_addr("6379/tcp")
        return f"redis://{host}:{port}/{self.vhost}"


default_redis_broker = container(
    image=BASE_IMAGES[1],
    ports={"6379/tcp": ("127.0.0.1", None)},
    network="{default_pytest_celery_network.name}",
    tmpfs={"/data": ""},  # or the image's own volume would outlive the container
    wrapper_class=Redis,
    command=Redis.command(),
)


@pytest.fixture
def default_redis_backend(default_redis_broker: Redis) -> Redis:
    return default_redis_broker


@pytest.fixture
def celery_broker_cluster(celery_redis_broker: RedisTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_redis_broker)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: RedisTestBackend) -> CeleryBackendCluster:
    return CeleryBackendCluster(celery_redis_backend)


@pytest.fixture
def outbox(default_redis_broker: Redis) -> Iterator[Callable[[str], list[Patch]]]:
    """What the outbox tells of a run, in order."""
    client = redis.Redis.from_url(default_redis_broker.celeryconfig["host_url"])

    def told_of(run_id: str) -> list[Patch]:
        entries = [entry for key in client.keys("taskcast:outbox:*") for entry in client.xrange(key)]
        patches = [decode(number.decode(), fields[ENTRY_FIELD.encode()]) for number, fields in entries]
        return [patch for patch in patches if patch.run_id == run_id]

    yield told_of
    client.close()


def final(patches: list[Patch]) -> list[str | None]:
    """The final statuses told."""
    return [patch.status for patch in patches if patch.is_final]


def test_the_image_runs_tasks_without_rights_and_ends_when_asked(
    celery_setup: CeleryTestSetup, outbox: Callable[[str], list[Patch]], docker_client: docker.DockerClient
) -> None:
    app: Celery = celery_setup.app
    worker = celery_setup.worker.container

    run = app.send_task("smoke.look_around", (str(uuid4()),), queue="default")
    assert run.get(timeout=60) == {"user": 10001, "application": ["config", "tasks"], "written": []}
    patches = wait_until(lambda: final(outbox(run.id)) and outbox(run.id), "its final state is in the outbox")
    assert final(patches) == ["completed"]
    assert any(patch.fields.get("message") == "Looking around" for patch in patches)

    alone = app.send_task("tasks.import_socials.import_socials", (str(uuid4()),), queue="io")
    wait_until(lambda: final(outbox(alone.id)) == ["failed"], "an import without a Supabase has failed")

    code, answer = worker.exec_run(["celery", "-A", "tasks", "inspect", "ping", "--json"])
    assert (code, [*json.loads(answer).values()]) == (0, [{"ok": "pong"}])
    assert worker.exec_run(["python", "-m", "pip", "--version"])[0] != 0
    code, said = worker.exec_run(["python", "-c", EVERY_MODULE])
    assert code == 0, f"requirements/app.txt lacks a package: {said.decode().splitlines()[-1]}"

    stopped = docker_client.containers.get(worker.id)
    stopped.stop(timeout=30)
    assert stopped.wait()["StatusCode"] == 0
