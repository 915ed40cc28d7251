"""Runs that are interrupted in every way go on from their checkpoint, and their bars do not fall back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from bridge.checkpoints import STAYS
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.checkpoints.conftest import APP, History, Post, Shown, falls, frequent, kept
from tests.acceptance.checkpoints.places import HELD, SHOWN
from tests.acceptance.limits.fleet import Fleet, Server, Worker
from tests.conftest import settings_on
from tests.lines import whole_lines
from tests.processes import bridge
from tests.waiting import wait_until

KINDS = ("killed", "child", "stopped", "raises", "rejects")
"""Ways in which an execution of a run with a checkpoint comes to its end."""

QUEUES = {"killed": "a", "without": "a", "stopped": "b"}


@dataclass
class Story:
    """Runs of every kind, interrupted at the same time, that went on elsewhere."""

    settings: BridgeSettings
    fleet: Fleet
    folder: Path
    history: History
    runs: dict[str, str] = field(default_factory=dict)
    kept_meanwhile: dict[str, str] = field(default_factory=dict)
    kept_afterwards: dict[str, dict[str, str]] = field(default_factory=dict)

    def starts(self, kind: str) -> list[str]:
        """Where the executions of a run began."""
        return starts(self.folder, self.runs[kind])

    def shown(self, kind: str) -> list[Shown]:
        return self.history.of(self.runs[kind])

    def all_show(self, progress: int) -> bool:
        lasts = map(self.history.last, self.runs.values())
        return all(last is not None and last.progress == progress for last in lasts)

    def all_begin_again(self) -> bool:
        lasts = map(self.history.last, self.runs.values())
        return all(last is not None and last.message == "execution 2" for last in lasts)


def starts(folder: Path, run: str) -> list[str]:
    return whole_lines(folder / f"starts-{run}")


def send(worker: Worker, number: int) -> None:
    """A signal to all processes of a worker."""
    keeper = worker.keeper()
    os.killpg(worker.pid, number)
    keeper.send_signal(number)


@pytest.fixture(scope="module")
def story(
    settings: BridgeSettings, history: History, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    fleet, sender = Fleet(settings, folder, app=APP), Post(settings)
    try:
        with bridge(settings, folder, APP):
            made = Story(settings, fleet, folder, history)
            tell(made, sender)
            yield made
    finally:
        fleet.end()
        sender.close()


def tell(story: Story, sender: Post) -> None:
    fleet = story.fleet
    killed, stopped = fleet.launch("prefork", 2, "-Q", "a"), fleet.launch("prefork", 1, "-Q", "b")
    fleet.launch("prefork", 7, "-Q", sender.app.conf.task_default_queue)
    for kind in (*KINDS, "without"):
        where = {"queue": QUEUES[kind]} if kind in QUEUES else {}
        story.runs[kind] = sender.send("counting", kind, kind != "without", **where)
    others = {"dies": sender.send("dies", 3), "replaced": sender.send("replaced")}
    wait_until(lambda: story.all_show(SHOWN), "all are half way")
    killed.kill("plug")
    send(stopped, signal.SIGSTOP)
    (child,) = fleet.ledger.of(story.runs["child"])
    psutil.Process(child.pid).kill()
    for kind in ("raises", "rejects", "stopped"):
        fleet.go(f"{kind}-on")
    for queue in ("a", "b"):
        sender.app.control.add_consumer(queue)
    wait_until(story.all_begin_again, "all are shown to execute again")
    for kind in story.runs:
        fleet.go(f"{kind}-seen")
    wait_until(lambda: story.all_show(HELD), "all are three quarters through")
    send(stopped, signal.SIGCONT)
    wait_until((story.folder / "lost-stopped").exists, "the one that was taken for dead is told")
    story.kept_meanwhile = kept(story.settings, story.runs["stopped"])
    for kind in story.runs:
        fleet.go(f"{kind}-end")
    story.runs.update(others)
    wait_until(lambda: all(map(story.history.is_final, story.runs.values())), "all end")
    wait_until(
        lambda: 0 < int(kept(story.settings, story.runs["raises"])["ttl"]) <= STAYS.total_seconds(),
        "what is kept of a run that has ended goes soon",
    )
    story.kept_afterwards = {kind: kept(story.settings, run) for kind, run in story.runs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_execution_goes_on_from_the_checkpoint(story: Story, kind: str) -> None:
    assert story.starts(kind) == ["0", "50"]
    assert story.shown(kind)[-1].status == "completed"


@pytest.mark.parametrize("kind", KINDS)
def test_the_bar_of_a_run_with_a_checkpoint_never_falls_back(story: Story, kind: str) -> None:
    shown = story.shown(kind)
    assert falls(shown) == []
    again = [each for each in shown if each.message == "execution 2"]
    assert again[0][2:5] == (SHOWN, SHOWN, 100)  # the message is the new one's, the counts stay
    assert {each.progress for each in again} >= {SHOWN, HELD}
    assert all(
        each.current == each.progress for each in shown if each.status == "in_progress" and each.current
    )


def test_without_a_checkpoint_a_run_and_its_bar_start_over(story: Story) -> None:
    assert story.starts("without") == ["0", "0"]
    ((before, after),) = falls(story.shown("without"))
    assert (before.progress, after.message) == (SHOWN, "execution 2")
    assert after.progress < 10


def test_an_attempt_that_has_lost_its_lease_is_refused_its_checkpoint(story: Story) -> None:
    assert story.kept_meanwhile["state:0"] == "70"
    assert story.shown("stopped")[-1].attempt == 2


def test_a_checkpoint_is_kept_when_the_call_returns_and_what_was_told_before_too(story: Story) -> None:
    assert story.starts("dies") == ["0", "1", "2", "3"]
    assert story.history.lines(story.runs["dies"]) == ["part 0", "part 1", "part 2"]


def test_a_replacement_does_not_get_the_checkpoint_of_what_it_replaces(story: Story) -> None:
    assert story.history.result(story.runs["replaced"]) is None
    assert story.kept_afterwards["replaced"]["state:0"] == '"of the replaced one"'


def test_what_is_kept_has_a_time_to_live_that_ends_soon_after_the_run(story: Story) -> None:
    for kind in (*KINDS, "dies", "replaced"):
        assert 0 < int(story.kept_afterwards[kind]["ttl"]) <= STAYS.total_seconds()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "redis", durable=True)
    yield made
    with suppress(ProcessLookupError):
        made.end()


def test_a_checkpoint_survives_a_restart_of_an_append_only_redis(
    server: Server, stack: RunningStack, history: History, tmp_path: Path
) -> None:
    base = settings_on(stack, "durable")
    settings = frequent(
        base.model_copy(update={"outbox": base.outbox.model_copy(update={"redis_url": server.url})})
    )
    fleet, sender = Fleet(settings, tmp_path, app=APP), Post(settings)
    try:
        with bridge(settings, tmp_path, APP):
            first = fleet.launch("prefork", 1)
            run = sender.send("counting", "restarted")
            wait_until(lambda: _progress(history, run) == SHOWN, "it is half way")
            server.kill()
            first.kill("plug")
            server.start()
            fleet.launch("prefork", 1)
            fleet.go("restarted-seen")
            fleet.go("restarted-end")
            wait_until(lambda: history.is_final(run), "it ends")
    finally:
        fleet.end()
        sender.close()
    assert starts(tmp_path, run) == ["0", "50"]
    assert falls(history.of(run)) == []


def _progress(history: History, run: str) -> int:
    last = history.last(run)
    return last.progress if last is not None else -1
