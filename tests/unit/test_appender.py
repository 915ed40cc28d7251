"""The appender when Redis hangs, fills up, is away for long, or the process forks or ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bridge.appender import Appender
from bridge.checkpoint import Checkpoint, Kept
from bridge.events import LogLine, Patch, run_uuid
from bridge.lifecycle import Identity
from bridge.outbox import Entry, OutboxUnavailable
from bridge.run import Run
from bridge.settings import OutboxSettings
from tests.waiting import wait_until

ROOT = run_uuid("root")


class SlowOutbox:
    """An outbox whose answers are held back until `answer` is set; it may be away, and may be full."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.answer = threading.Event()
        self.answer.set()
        self.asked = threading.Event()
        self.away = False
        self.full = 0.0

    def append(self, entries: Sequence[Entry]) -> None:
        self.asked.set()
        self.answer.wait()
        if self.away:
            raise OutboxUnavailable("away")
        self.entries.extend(entries)

    def fullness(self) -> float:
        return self.full

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        return Kept()

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        return True

    @property
    def statuses(self) -> list[str | None]:
        return [patch.status for _, patch in self.entries]


@pytest.fixture
def outbox() -> SlowOutbox:
    return SlowOutbox()


@pytest.fixture
def appender(outbox: SlowOutbox) -> Iterator[Appender]:
    settings = OutboxSettings(flush_interval=0.005, buffered_runs=100)  # type: ignore[arg-type]
    made = Appender(outbox, settings)
    yield made
    outbox.away = False
    outbox.answer.set()
    made.close()


def state(status: str, run: int = 1, **fields: Any) -> list[Entry]:
    return [(ROOT, Patch(run_uuid(f"run-{run}"), 1, 0.0, {"status": status, **fields}))]


def test_while_redis_hangs_a_later_report_does_not_wait_for_it(
    appender: Appender, outbox: SlowOutbox
) -> None:
    outbox.away = True
    appender.append(state("queued"))
    outbox.answer.clear()  # from now on Redis takes requests and answers none
    outbox.asked.clear()
    wait_until(outbox.asked.is_set, "the appender tries again in the background")
    told = threading.Thread(target=appender.append, args=(state("in_progress"),), daemon=True)
    told.start()
    told.join(5)
    assert not told.is_alive(), "a task's thread waits for a Redis that is known to hang"
    outbox.away = False
    outbox.answer.set()
    wait_until(lambda: outbox.statuses == ["queued", "in_progress"], "both are caught up, in order")


def test_two_threads_wait_for_one_hanging_answer_not_for_two(appender: Appender, outbox: SlowOutbox) -> None:
    outbox.away = True
    outbox.answer.clear()
    tellers = [threading.Thread(target=appender.append, args=(state("queued", n),)) for n in range(4)]
    for teller in tellers:
        teller.start()
    wait_until(outbox.asked.is_set, "the first one asks")
    asked = 0

    def counted(entries: Sequence[Entry]) -> None:
        nonlocal asked
        asked += 1
        raise OutboxUnavailable("away")

    outbox.append, answer = counted, outbox.append  # type: ignore[method-assign]
    outbox.answer.set()
    for teller in tellers:
        teller.join(5)
    assert asked == 0, "who waited for the one that failed asks again at once"
    outbox.append = answer  # type: ignore[method-assign]
    outbox.away = False
    wait_until(lambda: len(outbox.entries) == 4, "all four are caught up")


def test_an_interrupted_append_loses_nothing(appender: Appender, outbox: SlowOutbox) -> None:
    """A soft time limit raises wherever the task's thread happens to be."""
    append = outbox.append

    def interrupted(entries: Sequence[Entry]) -> None:
        outbox.append = append  # type: ignore[method-assign]
        raise RuntimeError("SoftTimeLimitExceeded")

    outbox.append = interrupted  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        appender.append(state("completed"))
    wait_until(lambda: outbox.statuses == ["completed"], "the state is appended after all")


def test_memory_is_bounded_by_runs_while_redis_is_away(appender: Appender, outbox: SlowOutbox) -> None:
    outbox.away = True
    for number in range(1_000):
        for status in ("queued", "in_progress", "completed"):
            [(root, patch)] = state(status, number)
            patch.logs = [LogLine("info", f"line {n}", 0.0) for n in range(5)]
            appender.append([(root, patch)])
    outbox.away = False
    wait_until(lambda: outbox.entries, "the outbox is back")
    appender.close()
    assert len(outbox.entries) <= 2 * 100
    assert {patch.run_id for _, patch in outbox.entries if patch.status == "completed"} >= {
        run_uuid(f"run-{number}") for number in range(950, 1_000)
    }


def test_the_last_state_of_every_kept_run_survives_a_long_outage(
    appender: Appender, outbox: SlowOutbox
) -> None:
    outbox.away = True
    for status in ("queued", "in_progress", "completed"):
        for number in range(90):
            appender.append(state(status, number, step=status))
    outbox.away = False
    wait_until(lambda: outbox.entries, "the outbox is back")
    appender.close()
    last = {patch.run_id: patch.status for _, patch in outbox.entries}
    assert last == {run_uuid(f"run-{number}"): "completed" for number in range(90)}


def test_a_closed_appender_opens_again(appender: Appender, outbox: SlowOutbox) -> None:
    """A second worker may start in the same process, as in an application's tests."""
    appender.close()
    run = Run(Identity(ROOT, ROOT, "t"), 1, appender, outbox, 0.01)
    run.progress(1, 2)
    wait_until(lambda: outbox.entries, "progress is appended in the background")


def test_a_forked_child_reports_although_the_parent_was_appending(
    appender: Appender, outbox: SlowOutbox
) -> None:
    outbox.answer.clear()
    busy = threading.Thread(target=appender.append, args=(state("queued"),))
    busy.start()
    wait_until(outbox.asked.is_set, "the parent is in the middle of an append")
    child = os.fork()
    if child == 0:
        outbox.answer.set()
        outbox.entries = []
        appender.append(state("completed"))
        os._exit(0 if outbox.statuses == ["completed"] else 1)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    outbox.answer.set()
    busy.join()
    assert ended == (child, 0)


def test_a_run_whose_lock_is_held_at_a_fork_reports_in_the_child(
    appender: Appender, outbox: SlowOutbox
) -> None:
    from bridge.current import enter

    run = Run(Identity(ROOT, ROOT, "t"), 1, appender, outbox, 0.01)
    enter(run)
    try:
        with run._lock:
            child = os.fork()
            if child == 0:
                run.log("from the child")
                run.flush()
                os._exit(0 if outbox.entries else 1)
        deadline = time.monotonic() + 10
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if ended == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
    finally:
        enter(None)
    assert ended == (child, 0)


@pytest.mark.timeout(20)
def test_what_a_signal_handler_tells_in_the_midst_of_an_append_follows() -> None:
    """Celery stops runs in handlers, which interrupt the worker's main thread wherever it is."""

    class Interrupted(SlowOutbox):
        def append(self, entries: Sequence[Entry]) -> None:
            if not self.entries:
                signal.raise_signal(signal.SIGUSR1)
            super().append(entries)

    outbox = Interrupted()
    appender = Appender(outbox, OutboxSettings())
    told = iter([(ROOT, Patch(ROOT, 1, 0.0, {"status": "queued"}))])
    before = signal.signal(signal.SIGUSR1, lambda *_: appender.append(list(told)))
    try:
        appender.append([(ROOT, Patch(ROOT, 1, 0.0, {"status": "in_progress"}))])
        wait_until(lambda: outbox.statuses == ["in_progress", "queued"], "both are appended, in order")
    finally:
        signal.signal(signal.SIGUSR1, before)
