"""`celery limits` as an operator types it, and what a living worker does from then on."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import settings_on
from tests.lines import whole_lines
from tests.processes import CHECKOUT, Process, environment, worker
from tests.waiting import PATIENCE, SLACK, wait_until

APP = "tests.acceptance.limits_cli_app"
SEEN_WITHIN = 2.0 + SLACK
"""Seconds after which every worker goes by a pause of a task that nothing else limits."""


class Shop:
    """The app, what its runs wrote down, and the command."""

    def __init__(self, module: ModuleType, settings: BridgeSettings, folder: Path) -> None:
        self.module, self.settings, self.folder = module, settings, folder
        self._names = itertools.count()

    def start(self, task: str, times: int = 1, **arguments: Any) -> list[str]:
        """Publish runs; their names."""
        names = [f"{task}-{next(self._names)}" for _ in range(times)]
        for name in names:
            getattr(self.module, task).delay(name, **arguments)
        return names

    def open(self, door: str) -> None:
        (self.folder / door).touch()

    def times(self, what: str) -> dict[str, float]:
        """When runs started or ended, by name."""
        notes = (line.split(" ") for line in whole_lines(self.folder / "notes"))
        return {name: float(at) for at, name, noted in notes if noted == what}

    def noted(self, what: str, names: list[str]) -> list[str]:
        return [name for name in names if name in self.times(what)]

    def started(self, names: list[str], count: int) -> None:
        wait_until(lambda: len(self.noted("started", names)) == count, f"{count} of {names} started")

    def is_idle(self) -> bool:
        return not any(
            row.waiting or (row.kind == "slots" and row.used)
            for row in self.module.app.bridge.limits.survey()
        )

    def limits(self, *arguments: str, **env: str) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of stdout, lines of stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", APP, "limits", *arguments],
            env={**os.environ, **environment(self.settings), **env}, cwd=CHECKOUT, capture_output=True,
            text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def says(self, *arguments: str) -> str:
        """The one line that a command that worked has said."""
        code, told, wrong = self.limits(*arguments)
        assert (code, len(told), wrong) == (0, 1, [])
        return told[0]

    def row(self, name: str, kind: str = "slots") -> dict[str, Any]:
        _, told, _ = self.limits("--json")
        return next((row for row in map(json.loads, told) if (row["name"], row["kind"]) == (name, kind)), {})

    def waits(self, count: int, name: str, kind: str = "slots") -> None:
        wait_until(lambda: self.row(name, kind).get("waiting") == count, f"{count} runs wait at {name}")


@pytest.fixture(scope="module")
def settings(stack: RunningStack) -> BridgeSettings:
    return settings_on(stack, f"limits-cli-{secrets.token_hex(4)}").model_copy(update={"supabase": None})


@pytest.fixture(scope="module")
def shop(settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("doors")
    os.environ.update(environment(settings))
    module = import_module(APP)
    os.environ[module.FOLDER] = str(folder)
    yield Shop(module, settings, folder)
    module.app.bridge.close()
    module.app.close()


@pytest.fixture(scope="module")
def crew(shop: Shop) -> Iterator[Process]:
    """One worker for most tests, with slots for all that they start."""
    with worker(shop.settings, shop.folder, APP, concurrency=8, name="w1") as process:
        yield process
        for door in ("pair", "each"):
            shop.open(door)


@pytest.fixture
def door(shop: Shop) -> Iterator[str]:
    """A door that is open when the test has ended; nothing is changed then, nor does anybody wait."""
    name = secrets.token_hex(4)
    yield name
    control = shop.module.app.bridge.limits
    for limit in ("shop.pair", "shop.each:account", "provider"):
        control.reset(limit)
    for closed in ("shop.pair", "shop.each:account", "provider", "shop.free"):
        control.resume(closed)
    for each in (name, f"{name}-later"):
        shop.open(each)
    wait_until(shop.is_idle, "nobody executes or waits")


def test_changes_and_those_who_wait_outlast_all_workers(shop: Shop, tmp_path: Path, door: str) -> None:
    """Stands first: no other worker takes its runs."""
    shop.says("pause", "shop.free")
    free = shop.start("free")
    with worker(shop.settings, tmp_path, APP, concurrency=4, name="before"):
        shop.says("set", "shop.pair", "1")
        runs = shop.start("pair", 2, door=door)
        shop.waits(1, "shop.pair")
        shop.waits(1, "shop.free", "task")
        shop.open(door)
        shop.started(runs, 2)
    assert (shop.row("shop.pair")["declared"], shop.row("shop.pair")["in_force"]) == (2, 1)
    free += shop.start("free", 20)
    with worker(shop.settings, tmp_path, APP, concurrency=4, name="after"):
        shop.waits(21, "shop.free", "task")
        assert not shop.noted("started", free)
        shop.says("resume", "shop.free")
        shop.started(free, 21)


@pytest.mark.usefixtures("crew")
class TestALivingWorker:
    def test_starts_as_many_more_as_a_raised_limit_lets_in(self, shop: Shop, door: str) -> None:
        runs = shop.start("pair", 5, door=door)
        shop.waits(3, "shop.pair")
        assert shop.says("set", "shop.pair", "4") == "shop.pair: 4 in force, was 2"
        shop.started(runs, 4)
        shop.open(door)
        shop.started(runs, 5)

    def test_ends_nothing_when_a_limit_is_lowered_and_starts_the_next_when_there_is_room(
        self, shop: Shop, door: str
    ) -> None:
        runs = shop.start("pair", 2, door=door)
        shop.started(runs, 2)
        shop.says("set", "shop.pair", "1")
        later = shop.start("pair", 2, door=f"{door}-later")
        shop.waits(2, "shop.pair")
        assert shop.row("shop.pair")["used"] == 2
        shop.open(door)
        shop.started(later, 1)
        assert shop.noted("ended", runs) == runs
        shop.waits(1, "shop.pair")
        assert shop.says("reset", "shop.pair") == "shop.pair: the declared value is in force again"
        shop.started(later, 2)
        shop.open(f"{door}-later")

    def test_starts_no_run_of_a_paused_limit_and_goes_on_when_it_is_resumed(
        self, shop: Shop, door: str
    ) -> None:
        assert shop.says("pause", "shop.pair") == "shop.pair is paused until it is resumed"
        runs = shop.start("pair", door=door)
        shop.waits(1, "shop.pair", "task")
        shop.started(shop.start("free"), 1)
        assert shop.says("resume", "shop.pair") == "shop.pair goes on"
        shop.started(runs, 1)

    def test_starts_no_run_of_a_paused_key_and_those_of_others(self, shop: Shop, door: str) -> None:
        key = "ann\x1b[31m"
        assert shop.says("pause", "shop.each:account", "--key", key, "--for", "10m") == (
            r"shop.each:account, key ann\x1b[31m, is paused for 10m"
        )
        held, others = (shop.start("each", door=door, account=account) for account in (key, "bob"))
        shop.started(others, 1)
        shop.waits(1, "shop.each:account")
        assert [row["paused"] for row in shop.row("shop.each:account")["keys"]] == [True, False]
        shop.says("resume", "shop.each:account", "--key", key)
        shop.started(held, 1)

    @pytest.mark.usefixtures("door")
    def test_holds_back_a_paused_task_without_limits_within_two_seconds(self, shop: Shop) -> None:
        shop.says("pause", "shop.free")
        paused_at = time.monotonic()
        sent: list[str] = []

        def waits() -> bool:
            sent.extend(shop.start("free"))
            return any(row.waiting for row in shop.module.app.bridge.limits.survey() if row.kind == "task")

        wait_until(waits, "a run of the paused task waits")
        later = shop.start("free", 3)
        wait_until(
            lambda: (
                shop.row("shop.free", "task").get("waiting", 0) + len(shop.noted("started", sent))
                == len(sent) + 3
            ),
            "all others wait",
        )
        assert not shop.noted("started", later)
        started = shop.times("started")
        assert max((started[name] for name in sent if name in started), default=0) < paused_at + SEEN_WITHIN
        shop.says("resume", "shop.free")
        shop.started(sent + later, len(sent) + 3)

    def test_holds_off_for_as_long_as_a_run_was_told_to(self, shop: Shop, door: str) -> None:
        asked = shop.start("ask", retry_after=600)
        wait_until(lambda: shop.noted("ended", asked), "the provider has answered")
        later = shop.start("ask", 3)
        shop.waits(3, "provider", "rate")
        row = shop.row("provider", "rate")
        assert 500 < row["resumes_in_seconds"] <= 600
        shop.says("resume", "provider")
        shop.started(later, 3)


# What the command says


def test_the_list_is_a_table_with_the_fullest_keys_below_their_limit(shop: Shop) -> None:
    scripts = shop.module.app.bridge.limits
    scripts.pause("shop.each:account", key="a\x07b")
    code, told, wrong = shop.limits()
    scripts.resume("shop.each:account", key="a\x07b")
    assert (code, wrong) == (0, [])
    assert [line.split() for line in told if "provider" not in line] == [  # whose units depend on the time
        ["name", "kind", "in", "force", "used", "waiting", "oldest", "wait", "paused"],
        ["shop.each:account", "slots", "1", "each", "0", "0"],
        [r"a\x07b", "0", "0", "until", "resumed"],
        ["shop.pair", "slots", "2", "0", "0"],
    ]


MISTAKES = {
    ("set", "shop.pare", "5"): "no limit or rate goes by this name; did you mean `shop.pair`?",
    ("set", "shop.pair", "0"): "pause it",
    ("set", "shop.pair", "10/1m"): "shop.pair counts slots",
    ("set", "provider", "5"): "provider is a rate; give one, such as 100/1m",
    ("set", "shop.pair", "many"): "write slots such as 5, or a rate such as 100/1m",
    ("reset", "nothing"): "known are provider, shop.each:account, shop.pair",
    ("pause", "shop.fre"): "did you mean `shop.free`?",
    ("pause", "shop.pair", "--key", "a"): "shop.pair is not split by a key",
    ("pause", "shop.pair", "--for", "soon"): "write a time such as 30s, 10m or 1h30m",
    ("resume", "shop.fre"): "did you mean `shop.free`?",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_with_the_remedy(arguments: tuple[str, ...], shop: Shop) -> None:
    code, told, wrong = shop.limits(*arguments)
    assert (code, told, len(wrong)) == (1, [], 1)
    assert wrong[0].startswith("taskcast: ")
    assert MISTAKES[arguments] in wrong[0]


@pytest.mark.parametrize("arguments", [(), ("--json",), ("set", "shop.pair", "3"), ("pause", "shop.free")])
def test_a_redis_that_is_away_is_one_line_without_its_password(
    arguments: tuple[str, ...], shop: Shop
) -> None:
    code, told, wrong = shop.limits(*arguments, **away(shop.settings))
    assert (code, told) == (1, [])
    assert wrong == ["taskcast: the limits' Redis at 127.0.0.1:1 does not answer (ConnectionError)"]


def away(settings: BridgeSettings) -> dict[str, str]:
    limits = settings.limits.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
    return environment(settings.model_copy(update={"limits": limits}))


def test_watching_lists_again_and_ends_with_ctrl_c(shop: Shop, tmp_path: Path) -> None:
    with watching(shop.settings, tmp_path, "--json") as process:
        wait_until(lambda: process.output().count('"shop.pair"') >= 2, "it is listed twice")
    for line in process.output().splitlines():
        json.loads(line)


def test_watching_tells_an_outage_once(shop: Shop, tmp_path: Path) -> None:
    settings = BridgeSettings.model_validate_json(away(shop.settings)["TASKCAST_TEST_SETTINGS"])
    with watching(settings, tmp_path) as process:
        process.says("does not answer")
    assert len(process.output().splitlines()) == 1


@contextmanager
def watching(settings: BridgeSettings, folder: Path, *arguments: str) -> Iterator[Process]:
    """`limits --watch`, interrupted at the block's end, where it has to end well."""
    command = [sys.executable, "-m", "celery", "-A", APP, "limits", "--watch", *arguments]
    process = Process(command, environment(settings), folder / "watch.log")
    try:
        yield process
    finally:
        code = process.end(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in process.output()


def test_the_command_of_the_application_needs_redis_only(stack: RunningStack) -> None:
    nothing = {"SUPABASE_URL": "", "SUPABASE_SECRET_KEY": "", "SUPABASE_SERVICE_ROLE_KEY": ""}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", "limits"],
        env={**os.environ, **nothing, "REDIS_URL": stack.redis_url, "PYTHONPATH": str(CHECKOUT)},
        cwd=CHECKOUT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "tasks.import_socials" in done.stdout
