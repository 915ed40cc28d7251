"""The fence: which attempts learn that they have lost their lease."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore
from redis import ConnectionError

from bridge.appender import Appender
from bridge.errors import TaskcastError
from bridge.events import run_uuid
from bridge.lifecycle import Identity
from bridge.limits.fence import Fence, LeaseLost
from bridge.run import Run
from bridge.settings import BridgeSettings, LimitSettings
from bridge.testing import MemoryOutbox
from tests.waiting import wait_until

HOLDER = "some-task:1:0#7"


class Pipe:
    """Redis as far as the fence asks it: what is known of the run, by its key."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[bytes | None, bytes | None]] = {}
        self.asked: list[str] = []
        self.is_away = False

    def pipeline(self, transaction: bool) -> Pipe:
        self.asked = []
        return self

    def hmget(self, key: str, *fields: str) -> None:
        assert fields == ("state", "holder")
        self.asked.append(key)

    def execute(self) -> list[Any]:
        if self.is_away:
            raise ConnectionError
        return [self.known.get(key, (None, None)) for key in self.asked]


@pytest.fixture
def redis() -> Pipe:
    return Pipe()


@pytest.fixture
def fence(redis: Pipe) -> Fence:
    made = Fence(BridgeSettings(limits=LimitSettings(lease=timedelta(seconds=10))))
    vars(made)["_redis"] = redis
    return made


def a_run(appender: Any = None, holder: str | None = HOLDER) -> Run:
    identity = Identity(run_uuid("fenced"), run_uuid("fenced"), "task")
    run = Run(identity, 1, appender or SimpleNamespace(mark=lambda _: None), MemoryOutbox(), 0.0)
    run.holder = holder
    return run


@pytest.mark.parametrize(
    ("state", "holder", "is_lost"),
    [
        (b"held", HOLDER.encode(), False),
        (b"held", b"some-task:1:0#8", True),
        (b"done", None, True),
        (b"ending", None, True),
        (b"lost", None, False),  # its worker takes it back: nobody else executes it
        (b"waiting", None, False),
        (b"granted", b"some-task:1:0#8", False),
        (None, None, False),  # Redis was emptied
    ],
)
def test_a_lease_is_lost_once_the_run_is_anothers_or_over(
    state: bytes | None, holder: bytes | None, is_lost: bool, fence: Fence, redis: Pipe
) -> None:
    run = a_run()
    redis.known["taskcast:limits:run:some-task:1:0"] = (state, holder)
    fence.look([run])
    assert run.lease_lost is is_lost


def test_without_a_lease_or_an_answer_nothing_is_lost(fence: Fence, redis: Pipe) -> None:
    fence.look([a_run(holder=None)])
    assert not redis.asked
    redis.is_away = True
    fence.look([run := a_run()])
    assert not run.lease_lost


def test_the_next_progress_of_an_attempt_that_lost_its_lease_raises() -> None:
    run = a_run()
    run.progress(1, 2)
    run.lease_lost = True
    with pytest.raises(LeaseLost, match="goes on elsewhere"):
        run.progress(2, 2)
    assert issubclass(LeaseLost, Ignore)
    assert issubclass(LeaseLost, TaskcastError)


def test_what_came_of_an_attempt_is_refused_only_if_it_was_long_enough_to_lose_its_lease(
    fence: Fence, redis: Pipe
) -> None:
    redis.known["taskcast:limits:run:some-task:1:0"] = (b"held", b"some-task:1:0#8")
    run = a_run()
    fence.refuse_lost(run)
    assert not redis.asked, "a short run costs no look"
    run.began = time.monotonic() - 6
    with pytest.raises(LeaseLost):
        fence.refuse_lost(run)


@pytest.fixture
def appender(fence: Fence) -> Iterator[Appender]:
    made = Appender(MemoryOutbox(), BridgeSettings().outbox, fence=fence)
    yield made
    made.close()


def test_runs_that_report_are_looked_at(appender: Appender, redis: Pipe) -> None:
    redis.known["taskcast:limits:run:some-task:1:0"] = (b"held", b"some-task:1:0#8")
    run = a_run(appender)
    run._due_at = -math.inf
    run.progress(1, 2)
    wait_until(lambda: run.lease_lost, "it is looked at")
