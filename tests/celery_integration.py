"""Celery's own integration tests, without and with the bridge: `python -m tests.celery_integration CHECKOUT`.

The checkout is of the Celery that is installed; only its `t/` is used. What follows it goes on to pytest.
With the bridge this module is also pytest's plugin, which installs it on the apps of Celery's fixtures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from celery.contrib import pytest as fixtures

from bridge import Bridge, BridgeSettings
from bridge.settings import OutboxSettings
from tests.processes import CHECKOUT
from tests.redis_server import redis_server, url_of

_create_app = fixtures._create_app


def pytest_configure() -> None:
    fixtures._create_app = _create_bridged_app


@contextmanager
def _create_bridged_app(*args: Any, **kwargs: Any) -> Iterator[Any]:
    with _create_app(*args, **kwargs) as app:
        bridge = Bridge(app, BridgeSettings(outbox=OutboxSettings(redis_url=os.environ["TEST_BROKER"])))
        yield app
        bridge.close()


def outcomes(place: Path, name: str, arguments: list[str]) -> dict[str, str]:
    """What came of each test."""
    with redis_server(place / name) as redis:
        url, port = url_of(redis), str(redis.connection_pool.connection_kwargs["port"])
        ours = {"TEST_BROKER": url, "TEST_BACKEND": url, "REDIS_PORT": port, "PYTHONPATH": str(CHECKOUT)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "pytest", "-o", "testpaths=t/integration", "-q", "--tb=short"]
        command += ["--timeout=300", "--junitxml=report.xml", *arguments]
        plugin = ["-p", "tests.celery_integration"] if name == "with" else []
        subprocess.run([*command, *plugin], cwd=place, env={**os.environ, **ours, "PATH": path}, check=False)
        events = sum(redis.xlen(key) for key in redis.keys("taskcast:outbox:*"))
        leased = len(redis.keys("taskcast:limits:run:*"))
    found = {_name(case): _outcome(case) for case in ElementTree.parse(place / "report.xml").iter("testcase")}
    counts = dict(Counter(found.values()))
    print(f"{name} the bridge: {counts}; {events} events, {leased} of the last runs leased")
    return found


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname')}.{case.get('name')}"


def _outcome(case: ElementTree.Element) -> str:
    told = [child for child in case if child.tag in ("failure", "error", "skipped")]
    kinds = {"pytest.xfail": "xfailed", "pytest.skip": "skipped"}
    return kinds.get(told[0].get("type", ""), "failed") if told else "passed"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(Path(sys.argv[1], "t"), Path(directory, "t"))
        shutil.copy(Path(sys.argv[1], "pyproject.toml"), directory)
        without, bridged = (outcomes(Path(directory), name, sys.argv[2:]) for name in ("without", "with"))
    for test in sorted(without | bridged):
        if without.get(test) != bridged.get(test):
            print(f"{test}: {without.get(test)} without the bridge, {bridged.get(test)} with it")
