"""Checkpoints: what may be kept, what the next execution gets, and a bar that does not fall back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.appender import Appender, Reporter
from bridge.checkpoint import Checkpoint, Kept, order
from bridge.current import detached_run
from bridge.errors import ArgumentError, PayloadTooLarge
from bridge.given import CHECKPOINT_LIMIT
from bridge.lifecycle import Identity
from bridge.limits.fence import LeaseLost
from bridge.outbox import OutboxUnavailable
from bridge.run import Run
from bridge.settings import OutboxSettings
from bridge.testing import MemoryOutbox
from tests.waiting import wait_until

RUN = Identity(run_id="0a1b2c3d-0000-4000-8000-000000000001", root_id="root", task="t")


class Outbox(MemoryOutbox):
    """An outbox in memory whose Redis can be away; `done` is what was asked of it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.done: list[str] = []
        self.hangs, self.asked = threading.Event(), threading.Event()

    def append(self, entries: Any) -> None:
        if self.hangs.is_set():
            self.asked.set()
            wait_until(lambda: not self.hangs.is_set(), "Redis answers")
        self.done.append("append")
        super().append(entries)

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        self._ask("take")
        return super().take_checkpoint(checkpoint)

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        self._ask("save")
        return super().save_checkpoint(checkpoint)

    def _ask(self, what: str) -> None:
        if self.away:
            raise OutboxUnavailable("away")
        self.done.append(what)

    def bar(self) -> list[tuple[int, int | None, int | None]]:
        """(current, total, percent) as the row came to show them."""
        told = [patch.fields for patch in self.patches if "current" in patch.fields]
        return [(each["current"], each["total"], each.get("progress")) for each in told]


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def execution(outbox: Outbox) -> Iterator[Callable[..., Run]]:
    """Begins an execution of the run, as the bridge does; the first one unless it is told otherwise."""
    appender = Appender(outbox, OutboxSettings())

    def begin(attempt: int = 1, nesting: int = 0, is_first: bool | None = None) -> Run:
        first = attempt == 1 if is_first is None else is_first
        run = Run(RUN, attempt, appender, outbox, 1, nesting, first)
        if not first:
            run.take_over()
        run.change({"status": "in_progress"})
        appender.settle(run)
        outbox.done.clear()
        return run

    yield begin
    appender.close()


def report(run: Run, *counts: tuple[int, int | None]) -> None:
    for current, total in counts:
        run.progress(current, total)
        run.flush()


# What is kept


@pytest.mark.parametrize("state", [{"cursor": 5}, "abc", 0, False, [1, {"é": None}]])
def test_a_checkpoint_comes_back_in_this_attempt_and_in_the_next(
    execution: Callable[..., Run], state: Any
) -> None:
    run = execution()
    assert run.last_checkpoint is None
    run.checkpoint(state)
    assert run.last_checkpoint == state
    assert execution(2).last_checkpoint == state


def test_what_is_kept_does_not_change_with_the_body_s_own_value(execution: Callable[..., Run]) -> None:
    state = {"done": [1]}
    run = execution()
    run.checkpoint(state)
    state["done"].append(2)
    run.last_checkpoint["done"].append(3)
    assert run.last_checkpoint == execution(2).last_checkpoint == {"done": [1]}


@pytest.mark.parametrize("state", [object(), {1, 2}, float("nan"), {"a": b"x"}, {(1, 2): 3}])
def test_what_is_no_json_is_refused_with_its_field_and_a_remedy(state: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^checkpoint=.*: is no JSON .*; keep a cursor or an id"):
        detached_run().checkpoint(state)


@pytest.mark.parametrize("levels", [51, 990, 100_000])
@pytest.mark.parametrize("kind", [list, tuple])
def test_nesting_is_bounded(levels: int, kind: type) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = kind([deep])
    for call in (detached_run().checkpoint, lambda value: detached_run().log("x", data=value)):
        with pytest.raises(ArgumentError, match="nested deeper than 50 levels"):
            call(deep)


def test_size_is_bounded(execution: Callable[..., Run]) -> None:
    run = execution()
    run.checkpoint("x" * (CHECKPOINT_LIMIT - 2))
    with pytest.raises(PayloadTooLarge, match=r"checkpoint is 64001 bytes.*64000.*keep a cursor"):
        run.checkpoint("x" * (CHECKPOINT_LIMIT - 1))
    assert len(run.last_checkpoint) == CHECKPOINT_LIMIT - 2  # what is refused changes nothing


def test_what_was_told_before_is_appended_first(execution: Callable[..., Run], outbox: Outbox) -> None:
    run = execution()
    outbox.hangs.set()
    run.log("half of it")
    outbox.asked.wait(10)  # the appender has taken it, and waits for Redis
    saving = threading.Thread(target=run.checkpoint, args=(5,))
    saving.start()
    saving.join(0.2)
    assert saving.is_alive()
    assert outbox.done == []
    outbox.hangs.clear()
    saving.join(10)
    assert outbox.done == ["append", "take", "save"]


def test_progress_keeps_its_own_pace(outbox: Outbox) -> None:
    class Couriers(Appender):
        settled = 0

        def settle(self, reporter: Reporter) -> None:
            self.settled += 1

    courier = Couriers(outbox, OutboxSettings())
    run = Run(RUN, 1, courier, outbox, 1)
    run.step("Importing")
    for number in range(100):
        run.progress(number, 100)
        run.checkpoint(number)
    assert courier.settled == 1
    courier.close()


def test_a_replacement_has_a_checkpoint_of_its_own(execution: Callable[..., Run]) -> None:
    execution().checkpoint("of the replaced task")
    assert execution(1, nesting=1).last_checkpoint is None


# Who may write


def test_an_overtaken_execution_changes_nothing_any_more(
    execution: Callable[..., Run], outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    old = execution()
    old.checkpoint("old")
    report(old, (3, 10))
    new = execution(2)
    with caplog.at_level(logging.WARNING):
        old.checkpoint("of one that was taken for dead")
    assert "a later execution has its checkpoint" in caplog.text
    report(old, (9, 10))
    third = execution(3)
    assert (new.last_checkpoint, third.last_checkpoint) == ("old", "old")
    report(third, (4, 10))
    assert outbox.bar()[-1] == (4, 10, 40)


def test_a_second_execution_of_the_same_attempt_overtakes_the_first(execution: Callable[..., Run]) -> None:
    old = execution()
    old.checkpoint(1)
    new = execution(1, is_first=False)
    new.checkpoint(2)
    old.checkpoint(3)
    assert execution(2).last_checkpoint == 2


def test_one_that_knows_that_its_lease_is_lost_is_told(execution: Callable[..., Run], outbox: Outbox) -> None:
    run = execution()
    run.lease_lost = True
    with pytest.raises(LeaseLost):
        run.checkpoint(1)
    assert outbox.done == []


# The bar


def test_the_bar_stays_until_the_next_attempt_has_come_as_far(
    execution: Callable[..., Run], outbox: Outbox
) -> None:
    run = execution()
    report(run, (50, 100))
    run.checkpoint(50)
    report(run, (57, 100))
    run = execution(2)
    report(run, *((number, 100) for number in range(51, 60)))
    assert outbox.bar() == [
        (50, 100, 50), (57, 100, 57), (57, 100, 57), (57, 100, 57), (58, 100, 58), (59, 100, 59)
    ]  # fmt: skip


def test_messages_and_steps_are_told_all_the_while(execution: Callable[..., Run], outbox: Outbox) -> None:
    run = execution()
    report(run, (50, 100))
    run.checkpoint(50)
    run = execution(2)
    run.progress(10, 100, "Importing mastodon...")
    run.step("again")
    run.flush()
    fields = {name: value for patch in outbox.patches for name, value in patch.fields.items()}
    assert (fields["message"], fields["step"], fields["progress"]) == ("Importing mastodon...", "again", 50)


def test_a_third_attempt_goes_on_from_what_the_second_showed(
    execution: Callable[..., Run], outbox: Outbox
) -> None:
    run = execution()
    report(run, (57, 100))
    run.checkpoint(50)
    run = execution(2)
    report(run, (51, 100))
    run.checkpoint(51)  # while the bar stays at 57
    report(run, (52, 100))
    report(execution(3), (53, 100), (60, 100))
    assert [percent for *_, percent in outbox.bar()] == [57, 57, 57, 60]


def test_what_was_told_just_before_the_crash_and_never_stored_is_told_by_the_next(
    execution: Callable[..., Run], outbox: Outbox
) -> None:
    run = execution()
    run.progress(40, 100)
    run.checkpoint(40)  # and dies before the appender comes by
    execution(2)
    assert [patch.fields["progress"] for patch in outbox.patches if patch.attempt == 2] == [40]


def test_within_an_attempt_the_bar_is_the_body_s_own(execution: Callable[..., Run], outbox: Outbox) -> None:
    """As of one that has two parts, and counts each from the start."""
    run = execution()
    report(run, (50, 100))
    run.checkpoint(50)
    report(run, (100, 100), (10, 100))
    run = execution(2)
    report(run, (51, 100), (100, 100), (0, 100))
    assert [percent for *_, percent in outbox.bar()] == [50, 100, 10, 10, 51, 100, 0]


@pytest.mark.parametrize("forget", [False, True])
def test_without_a_checkpoint_the_bar_starts_over(
    execution: Callable[..., Run], outbox: Outbox, forget: bool
) -> None:
    run = execution()
    if forget:
        run.checkpoint(50)
    report(run, (50, 100))
    if forget:
        run.checkpoint(None)
    run = execution(2)
    assert run.last_checkpoint is None
    report(run, (1, 100))
    assert outbox.bar() == [(50, 100, 50), (1, 100, 1)]


def test_counts_without_a_total_do_not_fall_either(execution: Callable[..., Run], outbox: Outbox) -> None:
    run = execution()
    report(run, (50, None))
    run.checkpoint(50)
    report(execution(2), (20, None), (51, None))
    assert [current for current, *_ in outbox.bar()] == [50, 50, 51]


COUNTS = st.tuples(st.integers(0, 2**53), st.integers(1, 2**53))


@given(COUNTS, COUNTS)
def test_less_far_is_never_more_percent(one: tuple[int, int], other: tuple[int, int]) -> None:
    def percent(counts: tuple[int, int]) -> int:
        return counts[0] * 100 // counts[1]

    ahead = order(one, other)
    assert ahead is not None
    assert (ahead >= 0) <= (percent(one) >= percent(other))
    assert (ahead <= 0) <= (percent(one) <= percent(other))


# While Redis is away


def test_a_body_goes_on_without_redis_and_is_told_once(
    execution: Callable[..., Run], outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    run = execution()
    run.checkpoint(1)
    outbox.away = True
    with caplog.at_level(logging.WARNING):
        for number in range(2, 9):
            run.checkpoint(number)
    assert caplog.text.count("would start from an older one") == 1
    assert run.last_checkpoint == 8
    outbox.away = False
    run.checkpoint(9)
    assert execution(2).last_checkpoint == 9


def test_a_first_attempt_needs_no_redis_to_know_that_there_is_nothing(
    execution: Callable[..., Run], outbox: Outbox
) -> None:
    outbox.away = True
    assert execution().last_checkpoint is None


def test_a_later_attempt_does_not_start_over_because_redis_is_away(
    execution: Callable[..., Run], outbox: Outbox
) -> None:
    execution().checkpoint(5)
    outbox.away = True
    run = Run(RUN, 2, Appender(outbox, OutboxSettings()), outbox, 1, is_first=False)
    with pytest.raises(OutboxUnavailable):
        _ = run.last_checkpoint
    outbox.away = False
    assert run.last_checkpoint == 5
