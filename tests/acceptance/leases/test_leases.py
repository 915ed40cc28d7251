"""Runs that nothing limits: delivered twice, or their workers killed under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import psutil
import pytest
import redis
from celery import chain, chord, uuid

from bridge.settings import BridgeSettings
from tests.acceptance.leases.conftest import APP, BEATS, LEASE, Leases, Post, Rows, attempts, executing
from tests.acceptance.leftovers import forget
from tests.acceptance.limits.fleet import Fleet, Worker
from tests.acceptance.limits.ledger import now
from tests.waiting import SLACK, wait_until

FOUND = LEASE.total_seconds() + BEATS + SLACK
"""Seconds within which a death is found and its runs go on: less than two leases of the default 15 s, and
than the four leases after which the reaper would find it."""

KINDS = ("long", "again", "replaced", "replaced_by_chain", "chain", "chord")
"""Runs that are killed twice, each on its own way."""

NUMBERS = {"again": [1, 2, 3, 4], "replaced": [1, 1, 2, 3], "replaced_by_chain": [1, 1, 2, 3]}
"""Attempts as the bodies are told of them; a replacement goes on with the number of what it replaces."""


# Delivered twice


def cut(client: redis.Redis, worker: Worker) -> None:
    """Close all connections that the worker's main process has to Redis."""
    ports = {each.laddr.port for each in psutil.Process(worker.pid).net_connections()}
    for each in client.client_list():
        if int(each["addr"].rpartition(":")[2]) in ports:
            client.client_kill_filter(addr=each["addr"])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_second_delivery_of_a_living_run_starts_nothing(
    pool: str, fleet: Fleet, sender: Post, books: Leases, client: redis.Redis
) -> None:
    fleet.env["TASKCAST_TEST_VISIBILITY"] = "1"
    workers = [fleet.launch(pool, 4), fleet.launch(pool, 4)]
    late, twice, lost = uuid(), uuid(), uuid()

    def dropped(run: str) -> int:
        return fleet.output().count(f"a second delivery of run {run} is dropped")

    for run in (late, twice, lost):
        sender.send("long", "ended", task_id=run)
    wait_until(lambda: executing(fleet, late, twice, lost), "all execute")
    for worker in workers:
        wait_until(worker.is_ready, "it is ready")
        cut(client, worker)
    sender.send("long", "ended", task_id=twice)
    wait_until(lambda: all(map(dropped, (late, lost, twice))), "each comes again")
    wait_until(lambda: dropped(twice) > 1, "one comes again twice")
    fleet.go("ended")
    wait_until(lambda: set(fleet.ledger.ends()) >= {late, twice, lost}, "all end")
    sender.send("long", "ended", task_id=late)
    wait_until(lambda: dropped(late) > 1, "one comes again although it has ended")
    assert [attempts(fleet, run) for run in (late, twice, lost)] == [[1]] * 3
    wait_until(lambda: books.state_of(late).get("state") == "done", "Redis knows that it has ended")
    wait_until(lambda: not books.leftovers(), "nothing is left")


# Killed under them


@dataclass
class Story:
    """What came of runs whose workers were killed, one after the other."""

    fleet: Fleet
    rows: Rows
    sender: Post
    runs: dict[str, str]
    killed_at: list[float]

    def all_go_on(self) -> bool:
        """Whether each run has been started since a worker was killed."""
        last = {each.run: each.since for each in self.fleet.ledger.executions()}
        return all(last[self.runs[kind]] > self.killed_at[-1] for kind in KINDS)


@pytest.fixture(scope="module")
def story(
    settings: BridgeSettings,
    rows: Rows,
    sender: Post,
    books: Leases,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Story]:
    """Two workers are killed: the main process of the first, all of the second and what keeps its lease."""
    fleet = Fleet(settings, tmp_path_factory.mktemp("story"), app=APP)
    try:
        made = Story(fleet, rows, sender, {}, [])
        tell(made)
        yield made
        wait_until(lambda: not books.leftovers(), "nothing is left")
    finally:
        fleet.end()
        forget(settings)


def tell(story: Story) -> None:
    fleet, runs, sender = story.fleet, story.runs, story.sender
    first, last = fleet.launch("prefork", 8), fleet.launch("prefork", 8, "-Q", "none")
    fleet.launch("prefork", 1, "-Q", "deadly")
    for kind in ("long", "early", "again", "replaced", "replaced_by_chain"):
        runs[kind] = sender.send(kind, "ended")
    quick, gather = sender.signature("quick", immutable=True), sender.signature("gather")
    runs["chain"] = sender.start(chain(quick, sender.signature("long", "ended", immutable=True)))
    members = [sender.signature("long", "ended", task_id=uuid()) for _ in range(2)]
    runs["chord"], runs["body"] = members[0].options["task_id"], sender.start(chord(members, gather))
    wait_until(lambda: executing(fleet, *(runs[kind] for kind in (*KINDS, "early"))), "all execute")
    runs["deadly"] = sender.send("deadly", queue="deadly")
    second = fleet.start("prefork", 8)
    story.killed_at.append(first.kill("parent"))
    wait_until(story.all_go_on, "all go on")
    fleet.launch("prefork", 1, "-Q", "deadly")
    story.killed_at.append(second.kill("plug"))
    wait_until(lambda: {story.rows.status(runs[kind]) for kind in KINDS} == {"queued"}, "all are queued")
    last.process.says(" ready.")
    sender.app.control.add_consumer(sender.app.conf.task_default_queue)
    wait_until(story.all_go_on, "all go on again")
    fleet.go("ended")
    fleet.launch("prefork", 1, "-Q", "deadly")
    for kind in (*KINDS, "body", "early", "deadly"):
        story.rows.final(runs[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_worker_is_killed_goes_on_elsewhere_as_the_next_attempt(kind: str, story: Story) -> None:
    run, row = story.runs[kind], story.rows.final(story.runs[kind])
    numbers = NUMBERS.get(kind, [1, 2, 3])
    assert attempts(story.fleet, run) == numbers
    assert (row["status"], row["attempt"], row["error_code"]) == ("completed", numbers[-1], None)
    assert row["max_attempts"] == (10 if kind in ("again", "replaced", "replaced_by_chain") else 4)
    assert row["result"] == numbers[-1]


def test_a_run_goes_on_within_two_leases(story: Story) -> None:
    """Where a worker is free; the second time none was until the rows said that they were queued again."""
    for kind in KINDS:
        run = story.runs[kind]
        goes_on = story.fleet.ledger.of(run)[-2].since - story.killed_at[0]
        queued = [turn.at for turn in story.rows.turns[run] if turn.status == "queued"][-1] - story.killed_at[
            1
        ]
        print(f"\n{kind}: goes on after {goes_on:.2f} s, queued after {queued:.2f} s")
        assert max(goes_on, queued) < FOUND


@pytest.mark.parametrize("kind", [*KINDS, "early", "deadly"])
def test_no_row_is_in_progress_for_long_while_nobody_executes_its_run(kind: str, story: Story) -> None:
    executed = story.fleet.ledger.of(story.runs[kind])
    turns = story.rows.turns[story.runs[kind]]
    gaps = [(one.until, two.since) for one, two in pairwise(executed)]
    gaps.append((executed[-1].until, now()))
    for since, until in gaps:
        shown = [turn for turn in turns if turn.at <= until]
        for turn, after in zip(turns, [*turns[1:], None], strict=True):
            if turn.status == "in_progress" and turn.at < until:
                over = after.at if after else now()
                assert min(over, until) - max(turn.at, since) < FOUND, (since, until, turns)
        assert shown


def test_a_chords_body_gets_what_the_attempts_that_ended_have_made(story: Story) -> None:
    row = story.rows.final(story.runs["body"])
    assert (row["status"], row["result"]) == ("completed", [3, 3])


def test_a_run_that_was_acked_early_fails_when_its_worker_is_killed(story: Story) -> None:
    run = story.runs["early"]
    row = story.rows.final(run)
    [executed] = story.fleet.ledger.of(run)
    [failed] = [turn for turn in story.rows.turns[run] if turn.status == "failed"]
    print(f"\nearly: failed after {failed.at - executed.until:.2f} s")
    assert (row["error_code"], row["attempt"]) == ("worker_lost", 1)
    assert failed.at - executed.until < FOUND + 2 * LEASE.total_seconds()
    wait_until(lambda: story.sender.state(run) == "FAILURE", "its result says so")


def test_a_run_that_takes_its_workers_with_it_fails_once_its_attempts_are_used_up(story: Story) -> None:
    run = story.runs["deadly"]
    row = story.rows.final(run)
    assert (row["status"], row["error_code"]) == ("failed", "worker_lost")
    assert (row["attempt"], row["max_attempts"]) == (2, 2)
    assert attempts(story.fleet, run) == [1, 2]
    wait_until(lambda: story.sender.state(run) == "FAILURE", "its result says so")
