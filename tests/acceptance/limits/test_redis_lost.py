"""The limits' Redis is emptied, gone for a while, or hangs, while the broker, another one, lives.

What holds: nobody starts whom nobody counts. Runs that ask meanwhile stay unacked at the broker until Redis
answers; those that execute go on, and their workers tell of them again.
What does not: a waiting run's message lives in the limits' Redis alone, as it was acked at the broker. An
emptied Redis, or one that comes back without its data, loses what waited there (`appendonly yes` keeps it);
the values and pauses that operators have set are gone with it, and what rates had counted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.settings import BridgeSettings
from tests.acceptance.limits.conftest import LEASE
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.limits.ledger import now
from tests.acceptance.limits.state import Books, Sender
from tests.waiting import wait_until

LIMIT = 5


@pytest.fixture(params=[False])
def apart(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The limits' own Redis; keeps what it was told over a restart if the parameter says so."""
    started = Server(tmp_path / "apart", durable=request.param)
    yield started
    started.send(signal.SIGCONT)
    started.end()


@pytest.fixture
def settings(settings: BridgeSettings, apart: Server) -> BridgeSettings:
    limits = settings.limits.model_copy(update={"redis_url": apart.url})
    return settings.model_copy(update={"limits": limits})


@pytest.fixture
def books(apart: Server, settings: BridgeSettings) -> Books:
    return Books(apart.client, settings.outbox.prefix)


@pytest.fixture
def executing(fleet: Fleet, sender: Sender) -> list[str]:
    """Five runs that execute, on two workers with room for more."""
    fleet.start(concurrency=4)
    fleet.start(concurrency=4)
    runs = [sender.send("five", "first") for _ in range(LIMIT)]
    wait_until(lambda: fleet.ledger.executing() == set(runs), "five runs execute")
    return runs


def all_end(fleet: Fleet, books: Books, runs: list[str], most: int = LIMIT) -> None:
    """Each of the runs ends once, and there were never more than `most`."""
    wait_until(lambda: set(runs) <= set(fleet.ledger.ends()), "all runs end")
    wait_until(books.is_idle, "all slots are free and nobody waits")
    assert set(fleet.ledger.ends().values()) == {1}
    assert fleet.ledger.most() == most
    assert "a slot that nobody here uses is free again" not in fleet.output()


def nobody_else_started(fleet: Fleet, executing: list[str]) -> bool:
    """Those that execute go on, and there was never another."""
    assert fleet.ledger.go_on(*executing)
    return {each.run for each in fleet.ledger.executions()} == set(executing)


def since(fleet: Fleet, runs: list[str]) -> float:
    """When the first of these runs started."""
    return min(each.since for each in fleet.ledger.executions() if each.run in runs)


def test_an_emptied_redis_learns_from_the_living_who_executes_and_lets_nobody_in_before(
    apart: Server, fleet: Fleet, sender: Sender, books: Books, executing: list[str]
) -> None:
    at = now()
    apart.client.flushall()
    later = [sender.send("short") for _ in range(20)]
    wait_until(lambda: len(books.holders()) == LIMIT, "the holders are known again")
    print(f"\nholders known again after {now() - at:.2f} s")
    wait_until(lambda: books.waiting() == len(later), "the others wait")
    wait_until(lambda: now() > at + 2 * LEASE.total_seconds(), "two leases are over")
    assert nobody_else_started(fleet, executing)
    fleet.go("first")
    all_end(fleet, books, [*executing, *later])


def test_an_emptied_redis_lets_nobody_in_for_one_lease_even_when_nothing_executes(
    apart: Server, fleet: Fleet, sender: Sender, books: Books
) -> None:
    fleet.start()
    before = sender.send("short")
    wait_until(lambda: fleet.ledger.ends()[before] and books.is_idle(), "a run ends")
    at = now()
    apart.client.flushall()
    run = sender.send("short")
    all_end(fleet, books, [before, run], most=1)
    print(f"\nlet in after {since(fleet, [run]) - at:.2f} s")
    assert since(fleet, [run]) - at >= LEASE.total_seconds()


def gone(apart: Server, fleet: Fleet, send: Callable[[], list[str]]) -> list[str]:
    """Redis is away until each worker misses it; returns the runs that were sent meanwhile."""
    apart.kill()
    sent = send()
    wait_until(lambda: all("does not answer" in each.process.output() for each in fleet.workers), "missed")
    apart.start()
    return sent


@pytest.mark.parametrize("apart", [True, False], ids=["durable", "forgetful"], indirect=True)
def test_a_redis_that_was_gone_finds_runs_that_waited_for_it(
    apart: Server, fleet: Fleet, sender: Sender, books: Books, executing: list[str]
) -> None:
    later = gone(apart, fleet, lambda: [sender.send("short") for _ in range(20)])
    wait_until(lambda: books.waiting() == len(later), "those that came meanwhile wait in line")
    wait_until(lambda: len(books.holders()) == LIMIT, "each worker has told what it holds")
    assert nobody_else_started(fleet, executing)
    fleet.go("first")
    all_end(fleet, books, [*executing, *later])


@pytest.mark.parametrize("apart", [True], ids=["durable"], indirect=True)
def test_runs_that_end_while_redis_is_gone_free_their_slots_afterwards(
    apart: Server, fleet: Fleet, sender: Sender, books: Books, executing: list[str]
) -> None:
    waiting = [sender.send("short") for _ in range(10)]
    wait_until(lambda: books.waiting() == len(waiting), "others wait")

    def meanwhile() -> list[str]:
        fleet.go("first")
        wait_until(lambda: set(fleet.ledger.ends()) == set(executing), "those that executed end")
        return [sender.send("short") for _ in range(10)]

    later = gone(apart, fleet, meanwhile)
    all_end(fleet, books, [*executing, *waiting, *later])


@pytest.mark.parametrize("apart", [False], ids=["forgetful"], indirect=True)
def test_a_redis_that_forgets_loses_the_runs_that_waited_there_and_no_others(
    apart: Server, fleet: Fleet, sender: Sender, books: Books, executing: list[str]
) -> None:
    lost = [sender.send("short") for _ in range(10)]
    wait_until(lambda: books.waiting() == len(lost), "others wait")
    later = gone(apart, fleet, lambda: [sender.send("short") for _ in range(10)])
    fleet.go("first")
    all_end(fleet, books, [*executing, *later])
    assert not set(lost) & set(fleet.ledger.ends())


def test_a_redis_that_hangs_lets_nobody_in_until_it_goes_on(
    apart: Server, fleet: Fleet, sender: Sender, books: Books, executing: list[str]
) -> None:
    waiting = [sender.send("short") for _ in range(10)]
    wait_until(lambda: books.waiting() == len(waiting), "others wait")
    at = now()
    apart.send(signal.SIGSTOP)
    later = [sender.send("short") for _ in range(10)]
    wait_until(lambda: now() > at + 2 * LEASE.total_seconds(), "two leases are over")
    assert nobody_else_started(fleet, executing)
    apart.send(signal.SIGCONT)
    wait_until(lambda: books.waiting() == len(waiting) + len(later), "all others wait")
    assert nobody_else_started(fleet, executing)
    fleet.go("first")
    all_end(fleet, books, [*executing, *waiting, *later])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_starts_while_redis_is_away_keeps_limits_once_it_is_there(
    pool: str, apart: Server, fleet: Fleet, sender: Sender, books: Books
) -> None:
    apart.kill()
    worker = fleet.start(pool, 8)
    runs = [sender.send("five", "first") for _ in range(20)]
    worker.process.says("received")
    apart.start()
    wait_until(lambda: len(fleet.ledger.executing()) == LIMIT, "five execute")
    fleet.go("first")
    all_end(fleet, books, runs)
    assert "Traceback" not in fleet.output()
