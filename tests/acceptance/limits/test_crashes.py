"""Workers that are killed, stopped or ended while runs wait for the slot that they hold.

The limit is 1, so that the ledger shows at once when a slot was given away too early, and a run that waits
shows when it was not given away at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import psutil
import pytest

from bridge.limits.broker import PARKED
from bridge.scripts import source
from bridge.settings import BridgeSettings
from tests.acceptance.limits.conftest import LEASE
from tests.acceptance.limits.fleet import Fleet, Server, Worker
from tests.acceptance.limits.ledger import now
from tests.acceptance.limits.proxy import Proxy
from tests.acceptance.limits.state import Books, Sender
from tests.waiting import PATIENCE, SLACK, wait_until

BEATS = 2.0  # others look for dead workers once a second: twice, at a lease that has run out
MISSED = 6.0  # Celery looks for dead pool processes every 5 s
SLOW = 0.04  # there and back: less than what the keeper waits for an answer
LONG = LEASE.total_seconds() + 2 * BEATS  # a lease that is not renewed has run out, and others have looked


def executes(fleet: Fleet, run: str) -> bool:
    """Whether the run has started, and lives."""
    return run in fleet.ledger.executing()


def ended(fleet: Fleet, run: str) -> bool:
    return fleet.ledger.ends()[run] == 1


def started_at(fleet: Fleet, run: str) -> float:
    """When the run started, for the first time."""
    return wait_until(lambda: fleet.ledger.of(run), f"run {run} starts")[0].since


def all_is_over(fleet: Fleet, books: Books) -> bool:
    """Nothing is held, nobody waits, there was never more than one, and nothing had to be tidied up."""
    wait_until(books.is_idle, "all slots are free and nobody waits")
    assert fleet.ledger.most() == 1
    assert "a slot that nobody here uses is free again" not in fleet.output()
    return True


@pytest.fixture
def two(fleet: Fleet, sender: Sender, books: Books) -> tuple[Worker, Worker, str, str]:
    """Two workers, a run that executes on the first, a run that waits."""
    first = fleet.start()
    executing = sender.send("hold", "first")
    wait_until(lambda: executes(fleet, executing), "the first run executes")
    second = fleet.start()
    waiting = sender.send("fine")
    wait_until(lambda: books.waiting() == 1, "the second run waits")
    return first, second, executing, waiting


# Killed workers


@pytest.mark.parametrize("how", ["parent", "group", "plug"])
def test_a_killed_workers_slot_is_free_within_the_lease_and_its_run_is_executed_again(
    how: str, two: tuple[Worker, Worker, str, str], fleet: Fleet, books: Books
) -> None:
    first, _, executing, waiting = two
    at = first.kill(how)
    fleet.go("first")
    wait_until(lambda: ended(fleet, waiting) and ended(fleet, executing), "both end")
    free = min(each.since for each in fleet.ledger.executions()[1:]) - at
    print(f"\n{how}: in use again after {free:.2f} s")
    assert free < LEASE.total_seconds() + BEATS + SLACK
    assert len(fleet.ledger.of(executing)) == 2
    assert all_is_over(fleet, books)


def test_a_killed_pool_process_gives_its_slot_back_once_celery_misses_it_and_its_run_is_executed_again(
    two: tuple[Worker, Worker, str, str], fleet: Fleet, books: Books
) -> None:
    first, _, executing, waiting = two
    pid = fleet.ledger.of(executing)[0].pid
    at = first.kill("child", [psutil.Process(pid)])
    fleet.go("first")
    wait_until(lambda: ended(fleet, waiting) and ended(fleet, executing), "both end")
    free = min(each.since for each in fleet.ledger.executions()[1:]) - at
    print(f"\nchild: in use again after {free:.2f} s")
    assert free < MISSED + SLACK
    assert len(fleet.ledger.of(executing)) == 2
    assert all_is_over(fleet, books)


# Living runs keep what they hold


def test_a_stopped_parent_keeps_the_slots_of_its_runs(
    two: tuple[Worker, Worker, str, str], fleet: Fleet, books: Books
) -> None:
    first, _, executing, waiting = two
    os.kill(first.pid, signal.SIGSTOP)
    until = now() + LONG
    wait_until(lambda: now() > until or fleet.ledger.of(waiting), "its lease would be over", 2 * LONG)
    assert fleet.ledger.go_on(executing)
    assert not fleet.ledger.of(waiting)
    assert len(books.holders()) == 1
    fleet.go("first")
    wait_until(lambda: ended(fleet, executing), "the body ends")
    os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: ended(fleet, waiting), "the other run ends")
    assert len(fleet.ledger.of(executing)) == 1
    assert all_is_over(fleet, books)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_body_that_holds_the_gil_keeps_its_slot(
    pool: str, fleet: Fleet, sender: Sender, books: Books
) -> None:
    fleet.launch(pool)
    fleet.start("prefork", 2, "-Q", "other")
    executing = sender.send("hold_gil", int(LONG))
    wait_until(lambda: fleet.ledger.of(executing), "it executes")
    waiting = sender.send("fine", queue="other")
    wait_until(lambda: books.waiting() == 1, "the other run waits")
    assert not fleet.ledger.of(executing)[0].end
    wait_until(lambda: ended(fleet, executing) and ended(fleet, waiting), "both end")
    [first] = fleet.ledger.of(executing)
    assert first.until - first.since >= LONG
    assert started_at(fleet, waiting) >= first.until
    assert all_is_over(fleet, books)


def test_a_second_delivery_of_a_living_run_starts_nothing_and_stands_in_for_a_lost_first_one(
    two: tuple[Worker, Worker, str, str], fleet: Fleet, books: Books
) -> None:
    """The broker delivers again what is not acked after 3 s; the copy is all that is left of the message."""
    first, _, executing, waiting = two
    wait_until(lambda: f"a second delivery of run {executing} is dropped" in fleet.output(), "it comes again")
    assert [each.run for each in fleet.ledger.executions()] == [executing]
    first.kill("group")
    fleet.go("first")
    wait_until(lambda: ended(fleet, waiting) and ended(fleet, executing), "both end")
    assert len(fleet.ledger.of(executing)) == 2
    assert all_is_over(fleet, books)


# Workers that are asked to end


def test_a_warm_shutdown_frees_the_slot_once_and_lets_others_go_on(
    two: tuple[Worker, Worker, str, str], fleet: Fleet, sender: Sender, books: Books
) -> None:
    first, second, executing, waiting = two
    os.kill(first.pid, signal.SIGTERM)
    first.process.says("Warm shutdown")
    fleet.go("first")
    assert first.process.end() == 0
    wait_until(lambda: ended(fleet, waiting), "the other run ends")
    assert len(fleet.ledger.of(executing)) == 1
    assert sender.state(executing) == "SUCCESS"
    assert second.process.end() == 0
    assert all_is_over(fleet, books)


def test_a_cold_shutdown_frees_the_slot_and_its_run_is_executed_again(
    two: tuple[Worker, Worker, str, str], fleet: Fleet, books: Books
) -> None:
    first, _, executing, waiting = two
    at = now()
    first.process.end(signal.SIGQUIT)
    wait_until(lambda: len(fleet.ledger.executions()) > 1, "a run starts in its place")
    print(f"\ncold: in use again after {fleet.ledger.executions()[1].since - at:.2f} s")
    fleet.go("first")
    wait_until(lambda: ended(fleet, waiting) and ended(fleet, executing), "both end")
    assert len(fleet.ledger.of(executing)) == 2
    assert all_is_over(fleet, books)


# A slow Redis, and answers that never come


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture
def through_proxy(settings: BridgeSettings, proxy: Proxy, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that reach the limits through the proxy, and the broker, which is the same Redis, directly."""
    limits = settings.limits.model_copy(update={"redis_url": proxy.url})
    made = Fleet(settings.model_copy(update={"limits": limits}), tmp_path)
    yield made
    made.end()


def last_word(worker: Worker) -> str:
    """What a worker has said last of the limits' Redis."""
    said = worker.process.output()
    return max(("does not answer", "answers again"), key=said.rfind)


def test_a_slow_redis_that_cuts_and_refuses_connections_breaks_no_limit_and_loses_no_run(
    proxy: Proxy, through_proxy: Fleet, sender: Sender, books: Books
) -> None:
    fleet = through_proxy
    fleet.start(concurrency=4)
    fleet.start(concurrency=4)
    runs = [sender.send("five", "first") for _ in range(5)]
    wait_until(lambda: fleet.ledger.executing() == set(runs), "five execute")
    runs += [sender.send("short", 0.1) for _ in range(150)]
    fleet.go("first")
    for ends in range(10, 60, 10):
        wait_until(lambda least=ends: len(fleet.ledger.ends()) >= least, f"{ends} ended")
        proxy.delay = 0.0 if proxy.delay else SLOW
        proxy.cut()
    proxy.delay = 0.0
    wait_until(lambda: all(last_word(each) == "answers again" for each in fleet.workers), "all is well")
    proxy.refuses = True
    proxy.cut()
    wait_until(lambda: all(last_word(each) == "does not answer" for each in fleet.workers), "it is missed")
    proxy.refuses = False
    wait_until(lambda: set(fleet.ledger.ends()) == set(runs), "all end", 2 * PATIENCE)
    assert set(fleet.ledger.ends().values()) == {1}
    assert fleet.ledger.most() == 5
    wait_until(books.is_idle, "all slots are free and nobody waits")


@pytest.mark.parametrize("command", ["limits_admit", "limits_release"])
def test_an_answer_that_is_lost_loses_no_run_and_no_slot(
    command: str, proxy: Proxy, through_proxy: Fleet, sender: Sender, books: Books
) -> None:
    fleet = through_proxy
    fleet.start()
    sha = sha1(source(command).encode()).hexdigest().encode()
    first = sender.send("fine")
    wait_until(lambda: ended(fleet, first) and books.is_idle(), "the commands are known, the slot is free")
    proxy.swallow.append(sha)
    runs = [sender.send("fine") for _ in range(3)]
    wait_until(lambda: all(ended(fleet, run) for run in runs), "all end")
    assert proxy.swallowed == 1
    wait_until(books.is_idle, "all slots are free and nobody waits")
    assert set(fleet.ledger.ends().values()) == {1}
    assert fleet.ledger.most() == 1


def test_a_parked_run_whose_answer_is_lost_is_executed_once(
    proxy: Proxy, through_proxy: Fleet, sender: Sender, books: Books
) -> None:
    fleet = through_proxy
    fleet.start()
    executing = sender.send("hold", "first")
    wait_until(lambda: executes(fleet, executing), "the first run executes")
    proxy.swallow.append(PARKED.encode())
    waiting = sender.send("fine")
    wait_until(lambda: proxy.swallowed and books.waiting() == 1, "the second run waits")
    fleet.go("first")
    wait_until(lambda: ended(fleet, executing) and ended(fleet, waiting), "both end")
    wait_until(books.is_idle, "all slots are free and nobody waits")
    assert set(fleet.ledger.ends().values()) == {1}
