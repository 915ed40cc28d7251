"""A few hundred mixed runs with known outcomes, and whether they came about."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import chord, uuid

from bridge.local.running import RunningStack
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import Keys, Post
from tests.database import final_rows
from tests.waiting import PATIENCE, wait_until

KINDS = ("plain", "limited", "early", "again", "later", "plain", "chord")
PACE = 0.04
BODY = 0.03


class Load:
    """Mixed runs that are sent one after the other for as long as the block runs."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.runs: dict[str, str] = {}  # kind by id
        self._over = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._send)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def reaches(self, count: int) -> None:
        wait_until(lambda: len(self.runs) >= count, f"{count} runs are sent", 2 * PATIENCE)

    def _send(self) -> None:
        place = 0
        while not self._over.wait(PACE):
            self._send_one(KINDS[place % len(KINDS)])
            place += 1

    def _send_one(self, kind: str) -> None:
        post = self._post
        if kind == "chord":
            members = [post.signature("plain", "", BODY, task_id=uuid()) for _ in range(3)]
            self.runs |= {each.options["task_id"]: "plain" for each in members}
            self.runs[post.start(chord(members, post.signature("gather")))] = "gather"
        elif kind == "later":
            self.runs[post.send("plain", "", BODY, countdown=1)] = "plain"
        else:
            self.runs[post.send(kind, "", BODY)] = kind


def all_is_true(load: Load, fleet: Fleet, books: Keys, stack: RunningStack) -> dict[str, dict[str, Any]]:
    """Each run has executed once and its row says so; nothing is held. Returns the rows."""
    found = final_rows(stack, list(load.runs))
    ends = fleet.ledger.ends()
    print(f"\n{len(load.runs)} runs, {len(fleet.ledger.executions())} executions")
    assert {row["status"] for row in found.values()} == {"completed"}
    assert not set(load.runs) - set(ends), "a run is lost"
    assert Counter(ends.values()) == {1: len(load.runs)}, "a run was executed twice"
    for run, kind in load.runs.items():
        number = 2 if kind == "again" else 1
        result = [1, 1, 1] if kind == "gather" else number
        assert (found[run]["attempt"], found[run]["result"]) == (number, result), kind
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")
    print(f"left in Redis: {books.keys()}")
    return found
