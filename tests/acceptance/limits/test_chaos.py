"""2,000 runs at a limit of 5 on 4 workers of 8 slots, while one after another is killed.

Killed are parents alone, whole groups, groups with their keeper (a pulled plug), and pool processes; the
choices are seeded, what they hit is not. Kills begin when all runs wait: between the pop of a message and
kombu's note of it in `unacked` a killed worker loses it, which no limit can mend. Once a run has been
parked, its message is kept with the limits until a worker has taken it up.
"""

from __future__ import annotations

import random
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet, Server, Worker
from tests.acceptance.limits.ledger import Execution, steps
from tests.acceptance.limits.state import Books, Sender
from tests.conftest import settings_on
from tests.database import final_rows
from tests.processes import bridge
from tests.waiting import PATIENCE, SLACK, wait_until

RUNS, LIMIT, WORKERS, SLOTS = 2_000, 5, 4, 8
LEASE = timedelta(seconds=4)  # a keeper that is not scheduled for three seconds does not lose it
GRANT = timedelta(seconds=1)
WITHIN = 2 * LEASE.total_seconds() + 2 * SLACK  # workers start meanwhile; a slot that leaks is never used
KINDS = ("parent", "group", "plug", "child")
SEED = 3
OVERTAKEN = 3.0  # a kill so soon after the end of a body may come before its ack


@dataclass(frozen=True)
class Kill:
    """What was killed, and when."""

    how: str
    at: float
    pids: frozenset[int]


@dataclass
class Killer:
    """Kills at random, and starts another worker for each that is gone."""

    fleet: Fleet
    random: random.Random
    kills: list[Kill] = field(default_factory=list)
    living: list[Worker] = field(default_factory=list)

    def launch(self) -> None:
        self.living.append(self.fleet.launch("prefork", SLOTS))

    def all_ready(self) -> bool:
        return all(worker.is_ready() for worker in self.living)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self.random.uniform(0.5, 1.6)):
            ready = [worker for worker in self.living if worker.is_ready()]
            if len(ready) > 1:
                self._kill(self.random.choice(ready))

    def _kill(self, worker: Worker) -> None:
        how, pool = self.random.choice(KINDS), worker.pool()
        if how == "child":
            pool = [self.random.choice(pool)]
        pids = frozenset(child.pid for child in pool)
        self.kills.append(Kill(how, worker.kill(how, pool), pids))
        if how != "child":
            self.living.remove(worker)
            self.launch()


def killed_by(kill: Kill, executions: list[Execution]) -> list[Execution]:
    return [each for each in executions if not each.end and each.pid in kill.pids]


def refills(kills: list[Kill], executions: list[Execution]) -> list[float]:
    """For each kill that freed slots while others waited for them, the time until these were in use again.

    What later kills have freed meanwhile is counted in, as it is their time that runs for it; a worker may
    also have had a run in hand that was let in and had not begun, of which the ledger knows nothing.
    """
    counts, found = steps(executions), []
    freed = {kill: killed_by(kill, executions) for kill in kills}
    starts = sorted({each.run: each.since for each in reversed(executions)}.values())
    enough_wait_until = starts[-LIMIT] - WITHIN
    for kill, gone in freed.items():
        if not gone or kill.at > enough_wait_until:
            continue
        over = max(each.until for each in gone)
        later = [(each.at, len(freed[each]) + (each.how != "child")) for each in kills if each.at > kill.at]
        full = (
            at
            for at, count in counts
            if at > over and count + sum(slots for since, slots in later if since <= at) >= LIMIT
        )
        found.append(next(full, float("inf")) - kill.at)
    return found


def doubled(executions: list[Execution], kills: list[Kill]) -> dict[str, list[float]]:
    """Runs whose body came to its end twice, and not because the kill of its worker came before its ack: how
    long after the end each kill came.

    The body of a worker whose parent alone is killed goes on to its end, and nobody is there to hear of it.
    """
    ends: dict[str, list[Execution]] = {}
    for each in executions:
        if each.end == "end":
            ends.setdefault(each.run, []).append(each)
    found = {}
    for run, ended in ends.items():
        killed = [[kill.at - each.until for kill in kills if each.pid in kill.pids] for each in ended[:-1]]
        if not all(any(after < OVERTAKEN for after in each) for each in killed):
            found[run] = [after for each in killed for after in each]
    return found


@pytest.fixture
def settings(stack: RunningStack, server: Server) -> BridgeSettings:
    """Broker, outbox and limits in a Redis of the test's own, rows in the stack."""
    made = settings_on(stack, "chaos")
    outbox = made.outbox.model_copy(update={"redis_url": server.url})
    limits = made.limits.model_copy(update={"lease": LEASE, "grant": GRANT})
    return made.model_copy(update={"outbox": outbox, "limits": limits})


@pytest.mark.timeout(600)
def test_kills_all_along_break_no_limit_lose_no_run_and_no_slot(
    stack: RunningStack, settings: BridgeSettings, fleet: Fleet, books: Books, sender: Sender, tmp_path: Path
) -> None:
    killer = Killer(fleet, random.Random(SEED))
    runs = [sender.send("short", 0.05) for _ in range(RUNS)]
    for _ in range(WORKERS):
        killer.launch()
    wait_until(killer.all_ready, "the workers are ready", 2 * PATIENCE)
    wait_until(
        lambda: books.waiting() + len(fleet.ledger.ends()) >= RUNS - LIMIT,
        "all others wait",
        2 * PATIENCE,
        0.2,
    )

    def behind() -> str:
        missing = sorted(set(runs) - set(fleet.ledger.ends()))
        where = [f"{run}: {books.mentions(run)}" for run in missing[:5]]
        return f"; {len(missing)} have not, after {len(killer.kills)} kills; {where}"

    with killer.at_work():
        wait_until(
            lambda: len(fleet.ledger.ends()) == RUNS, "all runs have ended", 4 * PATIENCE, 0.5, tell=behind
        )
    wait_until(books.is_idle, "no slot is held, nobody waits")

    executions, kills = fleet.ledger.executions(), killer.kills
    times = refills(kills, executions)
    took = executions[-1].until - executions[0].since
    print(
        f"\n{RUNS} runs in {took:.0f} s, at most {fleet.ledger.most()} at once; "
        f"{len(kills)} kills ({dict(Counter(kill.how for kill in kills))}), "
        f"{len(executions) - RUNS} executions more than runs; slots of {len(times)} kills in use again after "
        f"{statistics.median(times):.2f} s (median), {max(times):.2f} s (most)"
    )
    assert fleet.ledger.most() == LIMIT
    assert set(fleet.ledger.ends()) == set(runs)
    assert not doubled(executions, kills)
    assert max(times) <= WITHIN
    # A run killed between its body's end and its result may still be with a dead worker, holding nothing.
    wait_until(lambda: {sender.state(run) for run in runs} == {"SUCCESS"}, "each has its result", every=0.5)
    with bridge(settings, tmp_path, app="tests.acceptance.limits.app"):
        assert {row["status"] for row in final_rows(stack, runs).values()} == {"completed"}
