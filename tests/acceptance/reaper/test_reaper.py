"""Rows that tell what is not so, and nobody left to tell better: the reaper mends them, and no others."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.reaper.conftest import APP, FOUND, STEADY, World
from tests.processes import Process, bridge
from tests.waiting import wait_until

SILENT = {
    "executing": "in_progress",
    "scheduled": "scheduled",
    "queued": "queued",
    "stopped": "in_progress",
}
"""What rows say in the end of runs that nothing waits for otherwise."""


def executing(fleet: Fleet, run: str) -> bool:
    """Whether the body has begun: those of this app are silent afterwards."""
    return any(not each.end for each in fleet.ledger.of(run))


def test_a_queued_run_whose_message_is_gone_fails_as_stalled(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    fleet.start("prefork", 1, "-Q", "none")
    lost, kept = world.send("long", "x"), world.send("long", "x", queue="other")
    world.becomes(lost, "queued")
    world.becomes(kept, "queued")
    world.server.client.delete("default")
    row = world.becomes(lost, "failed", FOUND)
    assert (row["error_code"], row["attempt"]) == ("stalled", 1)
    [line] = world.execute("select message from processing_job_logs where job_id = %s", lost)
    assert line["message"] == row["error_message"]
    wait_until(lambda: world.app.AsyncResult(lost).state == "FAILURE", "its result says so")
    assert world.row(kept)["status"] == "queued"
    wait_until(lambda: f"run {lost}" in reaping.output(), "the reaper tells")
    assert reaping.output().count(f"run {lost}") == 1


@pytest.mark.parametrize("lease", [STEADY], ids=["steady"])
def test_runs_of_an_emptied_redis_fail_unless_a_worker_executes_them(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    killed = fleet.start("prefork", 1)
    lost = world.send("long", "lost")
    wait_until(lambda: executing(fleet, lost), "it executes")
    other = fleet.start("prefork", 1, "-Q", "other")
    living, waiting = world.send("long", "living", queue="other"), world.send("limited", "x", queue="third")
    wait_until(lambda: executing(fleet, living), "it executes")
    world.becomes(waiting, "queued")
    world.becomes(lost, "in_progress")
    world.becomes(living, "in_progress")
    killed.kill("plug")
    world.server.client.flushall()
    assert world.becomes(lost, "failed", FOUND)["error_code"] == "worker_lost"
    assert world.becomes(waiting, "failed", FOUND)["error_code"] == "stalled"
    assert world.row(living)["status"] == "in_progress"
    fleet.go("living")
    assert world.becomes(living, "completed")["result"] == "living"
    other.process.end()


def test_where_no_worker_is_left_the_runs_of_the_dead_are_queued_again(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    worker = fleet.start("prefork", 1)
    run = world.send("long", "later")
    wait_until(lambda: executing(fleet, run), "it executes")
    world.becomes(run, "in_progress")
    worker.kill("plug")
    world.becomes(run, "queued", FOUND)
    wait_until(lambda: world.server.client.llen("default") == 1, "its message is there")
    fleet.go("later")
    fleet.start("prefork", 1)
    row = world.becomes(run, "completed")
    assert (row["attempt"], row["result"]) == (2, "later")


@pytest.mark.parametrize("lease", [STEADY], ids=["steady"])
def test_rows_that_have_missed_news_are_told_where_their_runs_are(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    fleet.start("prefork", 2)
    first = world.send("limited", "x")
    wait_until(lambda: executing(fleet, first), "it executes")
    waiting, ended = world.send("limited", "x"), world.send("again", "x", 0)
    world.becomes(waiting, "waiting")
    assert world.becomes(ended, "completed")["result"] == "x"
    queued = world.send("long", "x", queue="none")
    world.becomes(queued, "queued")
    world.says(waiting, "queued", wait_reason=None, queue_position=None)
    world.says(ended, "in_progress", result=None)
    world.says(queued, "in_progress")
    row = world.becomes(waiting, "waiting", FOUND)
    assert (row["wait_reason"], row["queue_position"]) == ("Waiting for a free slot.", 1)
    assert world.becomes(ended, "completed", FOUND)["result"] == "x"
    world.becomes(queued, "queued", FOUND)


@pytest.mark.parametrize("lease", [STEADY], ids=["steady"])
def test_silent_runs_that_are_under_way_are_left_alone(world: World, reaping: Process, fleet: Fleet) -> None:
    """Executing, stopped with their worker, waiting, scheduled, before a retry, in line, now a chord."""
    worker, stopped = fleet.start("prefork", 5), fleet.start("prefork", 1, "-Q", "stopped")
    away = 3_600
    runs = {
        "executing": world.send("long", "x"),
        "limited": world.send("limited", "x"),
        "fan": world.send("fan", "x"),
        "scheduled": world.send("long", "x", countdown=away),
        "retrying": world.send("again", "x", away),
        "queued": world.send("long", "x", queue="none", priority=6),
        "stopped": world.send("long", "x", queue="stopped"),
    }
    wait_until(lambda: executing(fleet, runs["stopped"]), "it executes")
    world.becomes(runs["limited"], "in_progress")
    runs["waiting"] = world.send("limited", "x")
    world.becomes(runs["waiting"], "waiting")
    world.becomes(runs["retrying"], "retrying")
    wait_until(lambda: len(fleet.ledger.executions()) == 5, "all execute that may")
    for name, status in SILENT.items():
        world.becomes(runs[name], status)
    query = "select count(*) from processing_jobs where parent_id = %s and status = 'in_progress'"
    wait_until(lambda: world.execute(query, runs["fan"]) == [{"count": 2}], "its parts are shown")
    os.kill(stopped.pid, signal.SIGSTOP)
    wait_until(world.is_heard, "there are no more news")
    before = {name: world.row(run) for name, run in runs.items()}
    lost = world.send("long", "x", queue="lost")  # what is found after all of these were looked at
    world.becomes(lost, "queued")
    world.server.client.delete("lost")
    world.becomes(lost, "failed", FOUND)
    os.kill(stopped.pid, signal.SIGCONT)
    assert {name: world.row(run) for name, run in runs.items()} == before
    fleet.go("x")
    for name in ("executing", "limited", "waiting", "fan", "stopped"):
        assert world.becomes(runs[name], "completed")["result"] == "x"
    worker.process.end()


def test_one_bridge_reaps_and_another_takes_over_when_it_is_killed(
    world: World, fleet: Fleet, tmp_path: Path
) -> None:
    fleet.start("prefork", 1, "-Q", "none")
    with bridge(world.settings, tmp_path, APP, "one") as one:
        wait_until(lambda: world.server.client.exists(f"{world.settings.outbox.prefix}:reaper"), "one reaps")
        with bridge(world.settings, tmp_path, APP, "two") as two:
            lost = world.send("long", "x")
            world.becomes(lost, "queued")
            world.server.client.delete("default")
            world.becomes(lost, "failed", FOUND)
            one.says(f"run {lost}")
            one.kill()
            lost = world.send("long", "x")
            world.becomes(lost, "queued")
            world.server.client.delete("default")
            world.becomes(lost, "failed", FOUND)
            two.says(f"run {lost}")


def test_a_ticket_that_was_claimed_and_not_dispatched_is_pending_again(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    fleet.start("prefork", 1, "-Q", "none")
    claimed = str(uuid4())
    queued = world.send("long", "x")
    world.becomes(queued, "queued")
    for ticket in (claimed, queued):
        world.execute(
            "insert into background_jobs (id, user_id, task, status, claimed_by, updated_at) "
            "values (%s, %s, 't', 'processing', %s, now() - interval '1 minute')",
            ticket, str(uuid4()), world.settings.deployment,
        )  # fmt: skip
    world.execute("delete from processing_jobs where id = %s", queued)  # only its message tells of it

    def status(ticket: str) -> str:
        return str(world.execute("select status from background_jobs where id = %s", ticket)[0]["status"])

    wait_until(lambda: status(claimed) == "pending", "it is pending again", FOUND)
    assert status(queued) == "processing"


def test_nothing_is_judged_by_a_queue_that_cannot_be_read(
    world: World, reaping: Process, fleet: Fleet
) -> None:
    """A message that nobody can read may be any run's: runs that are nowhere else may still come."""
    fleet.start("prefork", 1, "-Q", "none")
    world.server.client.lpush("default", b"no JSON")
    run = world.send("long", "x", queue="other")
    world.becomes(run, "queued")
    world.server.client.delete("other")
    wait_until(lambda: "cannot be read" in reaping.output(), "it is told", FOUND)
    assert world.row(run)["status"] == "queued"
    world.server.client.delete("default")
    world.becomes(run, "failed", FOUND)


def test_a_bridge_ends_although_redis_hangs_as_its_reaper_looks(world: World, tmp_path: Path) -> None:
    with bridge(world.settings, tmp_path, APP) as reaping:
        wait_until(lambda: world.server.client.exists(f"{world.settings.outbox.prefix}:reaper"), "it reaps")
        world.server.send(signal.SIGSTOP)
        try:
            reaping.says("redis:")  # told as away
            assert reaping.end() == 0
        finally:
            world.server.send(signal.SIGCONT)
