"""Workers that are asked to end while their runs execute, wait in every way, or are tried again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import executing
from tests.acceptance.limits.fleet import Fleet, Worker
from tests.acceptance.limits.ledger import now
from tests.acceptance.restarts.conftest import APP, LEASE, Keys, Post
from tests.acceptance.restarts.pipes import unread
from tests.database import final_rows, rows
from tests.processes import bridge
from tests.waiting import wait_until

SOFT = 5.0
"""Seconds that a soft shutdown waits for runs to end."""

TOLD = 3 * LEASE.total_seconds()
"""Seconds until rows show what a worker tells as it ends; the reaper would see to it after four leases."""

EXECUTE = ("executes", "ends", "early", "limited", "again")

AGAIN = ("executes", "limited", "again")
"""Runs that a cold shutdown stops; their messages are acked late."""

UNTOUCHED = ("waits", "scheduled", "retrying", "reserved 0", "reserved 1", "reserved 2")


class Story:
    """One worker with a run of every kind in its hands, and what came of them."""

    def __init__(self, fleet: Fleet, post: Post, stack: RunningStack) -> None:
        self.fleet, self._post, self._stack = fleet, post, stack
        self.runs: dict[str, str] = {}

    def begin(self) -> Worker:
        worker, post, runs = self.fleet.start("prefork", 5), self._post, self.runs
        runs["limited"] = post.send("limited", "long")
        wait_until(lambda: executing(self.fleet, runs["limited"]), "the one that may executes")
        runs["waits"] = post.send("limited", "", 0.05)
        runs["scheduled"] = post.send("plain", "", 0.05, countdown=5)
        runs["retrying"] = post.send("again", "", 0.05, 5)
        told = {"waits": "waiting", "scheduled": "scheduled", "retrying": "retrying"}
        wait_until(lambda: [self.status(kind) for kind in told] == list(told.values()), "rows show it")
        runs["executes"] = post.send("plain", "long")
        runs["ends"] = post.send("plain", "short")
        runs["early"] = post.send("early", "long")
        runs["again"] = post.send("again", "long")
        wait_until(lambda: executing(self.fleet, *map(runs.__getitem__, EXECUTE)), "five execute")
        wait_until(lambda: {*map(self.status, EXECUTE)} == {"in_progress"}, "rows show that they do")
        for place in range(3):
            runs[f"reserved {place}"] = post.send("plain", "", 0.05)
        wait_until(lambda: self.status("reserved 2") == "queued", "others are reserved")
        return worker

    def status(self, kind: str) -> str | None:
        row = rows(self._stack, [self.runs[kind]]).get(self.runs[kind])
        return str(row["status"]) if row else None

    def end(self) -> dict[str, dict[str, object]]:
        """The rows once all are final, by kind."""
        found = final_rows(self._stack, list(self.runs.values()))
        return {kind: found[run] for kind, run in self.runs.items()}

    def times(self, kind: str) -> int:
        return len(self.fleet.ledger.of(self.runs[kind]))


@pytest.fixture(scope="module", autouse=True)
def mirror(settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bridge(settings, tmp_path_factory.mktemp("bridge"), APP):
        yield


@pytest.fixture
def story(fleet: Fleet, post: Post, stack: RunningStack) -> Story:
    return Story(fleet, post, stack)


def stop(worker: Worker, how: str) -> None:
    """Ask it to end, and wait until it has."""
    if how == "interrupted":
        os.kill(worker.pid, signal.SIGINT)
        worker.process.says("Warm shutdown")
    number = {"interrupted": signal.SIGINT, "remapped": signal.SIGTERM}.get(how, signal.SIGQUIT)
    os.kill(worker.pid, number)


def none_executes_in_vain(story: Story) -> None:
    """No row shows a run as executing while no worker is there."""
    at = now()
    wait_until(lambda: "in_progress" not in map(story.status, story.runs), "no row is in progress", TOLD)
    print(f"\nno row in progress {now() - at:.2f} s after the worker's end")


def nothing_is_held(books: Keys, story: Story) -> None:
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")
    assert "Traceback" not in story.fleet.output()
    print(f"left in Redis: {books.keys()}")


@pytest.mark.parametrize("how", ["interrupted", "remapped"])
def test_what_a_worker_had_when_it_was_stopped_is_executed_by_the_next(
    how: str, story: Story, books: Keys
) -> None:
    """By SIGINT twice; by a SIGTERM that means SIGQUIT, with some seconds to go on."""
    fleet, is_soft = story.fleet, how == "remapped"
    fleet.env.update(
        TASKCAST_TEST_SOFT=str(SOFT if is_soft else 0), REMAP_SIGTERM="SIGQUIT" if is_soft else ""
    )
    worker = story.begin()
    stop(worker, how)
    if is_soft:
        worker.process.says("Initiating Soft Shutdown")
        fleet.go("short")
    worker.process.end(0)
    none_executes_in_vain(story)
    wait_until(lambda: story.status("early") == "failed", "the one that cannot go on has failed")
    for name in ("short", "long"):
        fleet.go(name)
    fleet.start("prefork", 5)
    found = story.end()
    assert {kind: found[kind]["status"] for kind in story.runs} == {
        kind: "failed" if kind == "early" else "completed" for kind in story.runs
    }
    assert found["early"]["error_code"] == "worker_lost"
    again = AGAIN if is_soft else (*AGAIN, "ends")
    assert {kind: story.times(kind) for kind in story.runs} == {
        kind: 2 if kind in again else 1 for kind in story.runs
    }
    assert set(story.fleet.ledger.ends().values()) == {1}
    assert {kind for kind in story.runs if found[kind]["attempt"] == 2} == {"again", "retrying"}
    nothing_is_held(books, story)


def test_a_worker_that_ends_warmly_ends_its_runs_and_leaves_the_others_to_the_next(
    story: Story, books: Keys
) -> None:
    worker = story.begin()
    os.kill(worker.pid, signal.SIGTERM)
    worker.process.says("Warm shutdown")
    for name in ("short", "long"):
        story.fleet.go(name)
    assert worker.process.end(0) == 0
    none_executes_in_vain(story)
    ended = {kind for kind in story.runs if story.status(kind) == "completed"}
    assert ended == set(EXECUTE)
    story.fleet.start("prefork", 5)
    found = story.end()
    assert {row["status"] for row in found.values()} == {"completed"}
    assert {kind: story.times(kind) for kind in story.runs} == dict.fromkeys(story.runs, 1)
    nothing_is_held(books, story)


@pytest.mark.parametrize(
    ("pool", "how"),
    [
        ("threads", "interrupted"),
        ("threads", "remapped"),
        ("gevent", "remapped"),
        ("solo", "interrupted"),
        ("solo", "remapped"),
    ],
)
def test_runs_that_nothing_can_stop_end_in_their_worker_however_often_it_is_told_to(
    pool: str, how: str, story: Story, post: Post, books: Keys
) -> None:
    """Pools other than prefork execute in the worker's main process; another worker is free meanwhile."""
    fleet, runs, is_soft = story.fleet, story.runs, how == "remapped"
    fleet.env.update(
        TASKCAST_TEST_SOFT=str(SOFT if is_soft else 0), REMAP_SIGTERM="SIGQUIT" if is_soft else ""
    )
    kinds = ("limited", "plain", "early")[: 1 if pool == "solo" else 3]
    first = fleet.start(pool, len(kinds))
    runs.update((kind, post.send(kind, "long")) for kind in kinds)
    wait_until(lambda: executing(fleet, *runs.values()), "they execute")
    stop(first, how)
    fleet.start("prefork", 2)
    stop(first, "again")
    runs.update(waits=post.send("limited", "", 0.05), free=post.send("plain", "", 0.05))
    wait_until(lambda: story.status("free") == "completed", "the other worker has worked")
    shown = dict.fromkeys(kinds, "in_progress") | {"waits": "waiting"}
    wait_until(lambda: {kind: story.status(kind) for kind in shown} == shown, "rows show it")
    wait_until(lambda: executing(fleet, *map(runs.__getitem__, kinds)), "they execute still")
    fleet.go("long")
    first.process.end(0)
    found = story.end()
    assert {(row["status"], row["attempt"]) for row in found.values()} == {("completed", 1)}
    assert {kind: story.times(kind) for kind in runs} == dict.fromkeys(runs, 1)
    nothing_is_held(books, story)


def test_a_run_that_reaches_a_pool_process_as_the_shutdown_comes_is_executed_once(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack
) -> None:
    """The process has the run already, and has not said so when Celery stops listening for a moment."""
    worker = fleet.start("prefork", 1, "-l", "DEBUG")
    first = post.send("plain", "", 0.05)
    wait_until(lambda: fleet.ledger.ends()[first] and books.is_idle(), "its one process has worked")
    [child] = worker.pool()
    child.suspend()
    run = post.send("plain", "", 0.05)
    wait_until(lambda: unread(child.pid), "Celery has written it to the process")
    os.kill(worker.pid, signal.SIGTERM)
    worker.process.says("Warm shutdown")
    worker.process.says("Worker: Stopping Pool")
    child.resume()
    assert worker.process.end(0) == 0
    fleet.start("prefork", 1)
    found = final_rows(stack, [run, post.send("plain", "", 0.05)])
    assert {row["status"] for row in found.values()} == {"completed"}
    assert len(fleet.ledger.of(run)) == 1
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")


def test_runs_that_reach_pool_processes_as_the_worker_is_stopped_coldly_are_stopped_too(
    story: Story, post: Post, books: Keys
) -> None:
    """Celery has not heard yet that they execute; it would wait for their end."""
    fleet, runs = story.fleet, story.runs
    worker = fleet.start("prefork", 2)
    before = [post.send("plain", "before") for _ in range(2)]
    wait_until(lambda: executing(fleet, *before), "both processes work")
    fleet.go("before")
    wait_until(lambda: set(before) <= set(fleet.ledger.ends()) and books.is_idle(), "both have worked")
    children = worker.pool()
    for child in children:
        child.suspend()
    runs.update((kind, post.send(kind, "long")) for kind in ("plain", "early"))
    held = set(runs.values())
    wait_until(lambda: {holder.split(":")[0] for holder in books.held()} == held, "they are let in")
    wait_until(lambda: len(unread(worker.pid)) == 2, "Celery has written them to the processes")
    os.kill(worker.pid, signal.SIGQUIT)
    worker.process.says("Hitting Ctrl+C again will terminate all running tasks")
    for child in children:
        child.resume()
    worker.process.end(0)
    fleet.go("long")
    fleet.start("prefork", 2)
    found = story.end()
    assert {kind: row["status"] for kind, row in found.items()} == {"plain": "completed", "early": "failed"}
    assert found["early"]["error_code"] == "worker_lost"
    assert {kind: fleet.ledger.ends()[run] for kind, run in runs.items()} == {"plain": 1, "early": 0}
    nothing_is_held(books, story)


LINGERING = {
    "ends": ("lingers", "after_return"),
    "early": ("lingers_early", "after_return"),
    "is retried": ("lingers_again", "on_retry"),
    "publishes": ("lingers_again", "apply_async"),
}


def test_what_has_ended_but_for_its_result_as_the_worker_is_stopped_coldly_is_not_executed_again(
    story: Story, post: Post, books: Keys, tmp_path: Path
) -> None:
    """A body is over, or has published its next attempt, when the signal comes that stops its process."""
    fleet, runs = story.fleet, story.runs
    worker = fleet.start("prefork", len(LINGERING))
    runs.update((kind, post.send(*how)) for kind, how in LINGERING.items())
    wait_until(lambda: all((tmp_path / f"at-{run}").exists() for run in runs.values()), "they linger")
    os.kill(worker.pid, signal.SIGQUIT)
    worker.process.says("Cold shutdown (MainProcess)")
    for moment in ("after_return", "on_retry", "apply_async"):
        fleet.go(moment)
    worker.process.end(0)
    fleet.start("prefork", 2)
    runs["after"] = post.send("plain", "", 0.05)
    found = story.end()
    assert {row["status"] for row in found.values()} == {"completed"}
    assert {kind: story.times(kind) for kind in runs} == {
        "ends": 1, "early": 1, "is retried": 2, "publishes": 2, "after": 1,
    }  # fmt: skip
    nothing_is_held(books, story)


def test_a_run_that_does_not_get_over_its_end_is_stopped_all_the_same(
    story: Story, post: Post, books: Keys, tmp_path: Path
) -> None:
    fleet, runs = story.fleet, story.runs
    worker = fleet.start("prefork", 1)
    runs["ends"] = post.send("lingers", "after_return")
    wait_until((tmp_path / f"at-{runs['ends']}").exists, "it lingers")
    worker.process.end(signal.SIGQUIT)
    fleet.go("after_return")
    fleet.start("prefork", 1)
    wait_until(lambda: fleet.ledger.ends()[runs["ends"]] == 2, "it is executed again")
    assert story.end()["ends"]["status"] == "completed"
    nothing_is_held(books, story)


def test_a_worker_that_is_stopped_coldly_as_it_reads_a_result_does_not_wait_for_itself(
    story: Story, post: Post, books: Keys, tmp_path: Path
) -> None:
    """The process that sent the result waits half a minute to see it counted."""
    fleet, runs = story.fleet, story.runs
    fleet.env["TASKCAST_TEST_READS_SLOWLY"] = "1"
    worker = fleet.start("prefork", 1)
    runs["ends"] = post.send("plain", "", 0.05)
    wait_until((tmp_path / "at-reads").exists, "it reads the result")
    os.kill(worker.pid, signal.SIGQUIT)
    worker.process.says("Cold shutdown (MainProcess)", 20)
    fleet.go("reads")
    worker.process.end(0)
    fleet.start("prefork", 1)
    runs["after"] = post.send("plain", "", 0.05)
    found = story.end()
    assert {row["status"] for row in found.values()} == {"completed"}
    assert {kind: story.times(kind) for kind in runs} == {"ends": 1, "after": 1}
    nothing_is_held(books, story)


def test_a_result_that_nobody_has_read_when_the_worker_is_stopped_coldly_counts(
    story: Story, post: Post, books: Keys
) -> None:
    fleet, runs = story.fleet, story.runs
    worker = fleet.start("prefork", 2)
    runs.update((kind, post.send(kind, "long")) for kind in ("plain", "early"))
    wait_until(lambda: executing(fleet, *runs.values()), "they execute")
    os.kill(worker.pid, signal.SIGSTOP)
    fleet.go("long")
    wait_until(lambda: {*map(story.status, runs)} == {"completed"}, "their processes have told of their ends")
    wait_until(lambda: len(unread(worker.pid)) == 2, "they have written the results")
    os.kill(worker.pid, signal.SIGQUIT)
    os.kill(worker.pid, signal.SIGCONT)
    worker.process.end(0)
    fleet.start("prefork", 1)
    runs["after"] = post.send("plain", "", 0.05)
    found = story.end()
    assert {row["status"] for row in found.values()} == {"completed"}
    assert {kind: story.times(kind) for kind in runs} == dict.fromkeys(runs, 1)
    nothing_is_held(books, story)


def test_a_process_that_is_told_to_stop_as_its_run_ends_stops_after_it(
    story: Story, post: Post, books: Keys, tmp_path: Path
) -> None:
    """Its run is revoked; Celery takes what that process executes next for revoked, too."""
    fleet, runs = story.fleet, story.runs
    worker = fleet.start("prefork", 1)
    runs["ends"] = post.send("lingers", "after_return")
    wait_until((tmp_path / f"at-{runs['ends']}").exists, "it lingers")
    [child] = worker.pool()
    post.app.control.revoke(runs["ends"], terminate=True)
    worker.process.says("Terminating")
    fleet.go("after_return")
    runs["after"] = post.send("plain", "", 0.05)
    wait_until(lambda: not child.is_running(), "the process ends")
    assert story.end()["after"]["status"] == "completed"
    assert {kind: story.times(kind) for kind in runs} == {"ends": 1, "after": 1}
    nothing_is_held(books, story)
