"""The Redis of the broker, the results, the outbox and the limits goes down and comes back.

With `appendonly yes` nothing is lost; `everysec` and `always` differ only when the machine itself goes down,
which loses the last second at most. Without it all that lay in Redis is lost: messages that no worker had
taken, or that wait for a limit or their time, events that no bridge had written, results, and with them the
chords that were on their way. What executes goes on, and its rows come out right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group, uuid

from bridge.local.running import RunningStack
from tests.acceptance.leases.conftest import executing
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.limits.ledger import now
from tests.acceptance.restarts.conftest import Keys, Post
from tests.database import final_rows, rows
from tests.processes import Process
from tests.waiting import wait_until

AT_ONCE = ("early", "again", "limited", "plain")
LOST = "Connection to broker lost"


class Story:
    """Runs in every state, before Redis goes."""

    def __init__(self, fleet: Fleet, post: Post, books: Keys) -> None:
        self.fleet, self._post, self.books = fleet, post, books
        self.runs: dict[str, str] = {}

    def begin(self) -> None:
        post, runs = self._post, self.runs
        self.fleet.launch("prefork", 10)
        self.fleet.start("prefork", 10)
        long, quick = ("long",), ("", 0.02)
        members = [post.signature("plain", *each, task_id=uuid()) for each in (quick, long)]
        runs |= zip(("member ended", "member"), (each.options["task_id"] for each in members), strict=True)
        runs["body"] = post.start(chord(members, post.signature("gather")))
        linked = (quick, long, quick)
        links = [post.signature("plain", *each, immutable=True, task_id=uuid()) for each in linked]
        runs |= {f"link {place}": each.options["task_id"] for place, each in enumerate(links)}
        post.start(chain(*links))
        grouped = [post.signature("plain", *each, task_id=uuid()) for each in (quick, long)]
        runs |= zip(("grouped ended", "grouped"), (each.options["task_id"] for each in grouped), strict=True)
        group(grouped).delay()
        for kind in AT_ONCE:
            runs[kind] = post.send(kind, "long")
        runs["ends meanwhile"] = post.send("plain", "meanwhile")
        self.executing = ["member", "link 1", "grouped", *AT_ONCE, "ends meanwhile"]
        wait_until(lambda: executing(self.fleet, *map(runs.__getitem__, self.executing)), "eight execute")
        for place in range(3):
            runs[f"waits {place}"] = post.send("limited", "", 0.02)
        wait_until(lambda: self.books.waiting() == 3, "three wait")
        runs["scheduled"] = post.send("plain", "", 0.02, countdown=6)
        wait_until(lambda: self.fleet.output().count(runs["scheduled"]) > 0, "it is scheduled")
        for place in range(3):
            runs[f"nobody's {place}"] = post.send("plain", "", 0.02, queue=f"{self.queue}-later")

    @property
    def queue(self) -> str:
        return str(self._post.app.conf.task_default_queue)

    def end(self) -> None:
        self.fleet.go("long")
        self.fleet.launch("prefork", 1, "-Q", f"{self.queue}-later")


@pytest.fixture
def story(fleet: Fleet, post: Post, books: Keys) -> Story:
    return Story(fleet, post, books)


def goes_down_for_a_while(server: Server, fleet: Fleet, ends: str) -> None:
    """Until every worker has missed it, and a run has come to its end meanwhile."""
    server.kill()
    fleet.go("meanwhile")
    wait_until(lambda: ends in fleet.ledger.ends(), "one ends meanwhile")
    wait_until(lambda: all(LOST in each.process.output() for each in fleet.workers), "all miss it")
    server.start()


def test_a_redis_that_keeps_its_data_loses_nothing_when_it_is_restarted(
    server: Server, story: Story, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    """No bridge has seen any event of these runs before."""
    fleet, runs = story.fleet, story.runs
    story.begin()
    assert not rows(stack, list(runs.values()))
    goes_down_for_a_while(server, fleet, runs["ends meanwhile"])
    story.end()
    new_bridge()
    found = final_rows(stack, list(runs.values()))
    shown = {kind: (found[run]["status"], found[run]["result"]) for kind, run in runs.items()}
    expected: dict[str, Any] = {kind: ("completed", 2 if kind == "again" else 1) for kind in runs}
    assert shown == expected | {"body": ("completed", [1, 1])}
    times = {kind: len(fleet.ledger.of(run)) for kind, run in runs.items()}
    assert times == dict.fromkeys(runs, 1)
    wait_until(lambda: not story.books.leftovers() and story.books.is_idle(), "nothing is left")


@pytest.mark.parametrize("server", [""], indirect=True)
def test_a_redis_that_forgets_loses_what_nobody_executed_and_nothing_else(
    server: Server, story: Story, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    fleet, runs = story.fleet, story.runs
    new_bridge()
    story.begin()
    ended = [runs[kind] for kind in ("member ended", "link 0", "grouped ended")]
    before = final_rows(stack, ended)
    goes_down_for_a_while(server, fleet, runs["ends meanwhile"])
    story.end()
    found = final_rows(stack, [runs[kind] for kind in story.executing])
    assert {row["status"] for row in found.values()} == {"completed"}
    assert rows(stack, ended) == before
    at = now()
    left = final_rows(stack, [runs[kind] for kind in runs if kind.startswith("waits") or kind == "scheduled"])
    told = {(row["status"], row["error_code"]) for row in left.values()}
    print(f"\nwhat is lost is told after {now() - at:.1f} s: {told}")
    assert told == {("failed", "stalled")}
    assert all(len(fleet.ledger.of(runs[kind])) == 1 for kind in story.executing)
    wait_until(lambda: not story.books.leftovers() and story.books.is_idle(), "nothing is left")
