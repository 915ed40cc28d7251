"""One campaign: load and faults side by side, everything healed, and the three ledgers compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.events import FINAL_STATUSES
from tests.acceptance.chaos import report
from tests.acceptance.chaos.client import Client, Clients
from tests.acceptance.chaos.faults import Faults
from tests.acceptance.chaos.journal import now, read
from tests.acceptance.chaos.load import Load
from tests.acceptance.chaos.rows import Rows, over_rest
from tests.acceptance.chaos.system import System
from tests.acceptance.chaos.truth import events, time_to_true
from tests.acceptance.chaos.verdict import judge, stories
from tests.acceptance.chaos.views import merged
from tests.processes import environment
from tests.waiting import wait_until

USERS = 4
TELL_EVERY = 5.0
QUIET_WITHIN = 90.0
"""Seconds after the last fault within which everything has to be true."""


@dataclass(frozen=True)
class Plan:
    """What decides a campaign; the same values hit the same places in the same order."""

    seed: int
    seconds: float
    pause: float
    rate: float
    only: list[str]


class Campaign:
    """The parts of a campaign at work."""

    def __init__(self, plan: Plan, system: System) -> None:
        self.plan, self.system, self.since = plan, system, now()
        users = [system.sign_up() for _ in range(USERS)]
        self.users = [user for user, _ in users]
        self.rows = Rows(system.stack)
        self.clients = [Client(system.stack, system.clients_url, user, token) for user, token in users]
        self._together = Clients(self.clients)
        os.environ.update(environment(system.settings))
        self.load = Load(plan.seed, self.users, plan.rate, self.rows.status)
        self.faults = Faults(system, plan.seed, (plan.pause / 5, plan.pause), plan.only)
        self._told = 0.0

    def start(self) -> None:
        self.rows.start()
        self._together.start()
        wait_until(lambda: all(client.joins for client in self.clients), "the clients have joined")
        self.load.start()
        self.faults.start()
        self.since = now()

    def last(self) -> None:
        """Until the time is over and each class of faults was there."""
        wait_until(
            self._telling(lambda: now() - self.since >= self.plan.seconds and self.faults.is_round()),
            "each class of faults was injected", self.plan.seconds + 120, every=0.1,
        )  # fmt: skip
        self.faults.heal()
        self.load.stop_sending()

    def settle(self) -> bool:
        """Whether all became true in time."""
        try:
            wait_until(self._telling(self._is_quiet), "all is true", QUIET_WITHIN, every=0.2)
        except AssertionError:
            return False
        return True

    def end(self) -> None:
        self.faults.heal()
        self.load.end()
        self._together.end()
        self.rows.end()

    def _is_quiet(self) -> bool:
        """All runs and their parts have ended, and the clients have seen it as the rows tell it."""
        seen = merged(self.clients).last
        known = [each.run for each in self.load.sent if not each.doubtful]
        rows = self.rows.last
        return (
            all(run in rows for run in known)
            and all(row["status"] in FINAL_STATUSES for row in rows.copy().values())
            and all(run in seen and seen[run]["seq"] == row["seq"] for run, row in rows.copy().items())
        )

    def _telling(self, done: Callable[[], bool]) -> Callable[[], bool]:
        def looked() -> bool:
            if now() - self._told >= TELL_EVERY:
                self._told = now()
                self._tell()
            return done()

        return looked

    def _tell(self) -> None:
        up = [place.name for place in self.system.places.values() if place.is_alive()]
        last = self.faults.done[-1] if self.faults.done else None
        print(
            f"{report.clock()} {now() - self.since:5.0f} s  runs {len(self.load.sent)}, "
            f"alive {len(self.load.alive())}  faults {len(self.faults.done)}"
            f"{f', the last {last.kind}: {last.detail}' if last else ''}  up {' '.join(up)}",
            flush=True,
        )


def run(plan: Plan, folder: Path) -> int:
    """The whole of it; returns the exit code."""
    print(f"chaos: seed {plan.seed}, {plan.seconds:.0f} s, logs in {folder}", flush=True)
    with System.started(folder) as system:
        campaign = Campaign(plan, system)
        try:
            campaign.start()
            campaign.last()
            print(f"{report.clock()} healed; waiting until all is true", flush=True)
            healed = now()
            settled = campaign.settle()
            told = "all is true" if settled else "not all is true"
            print(f"{report.clock()} {told} after {now() - healed:.1f} s")
            rows = over_rest(system.stack, campaign.users)
        finally:
            campaign.end()
        return _conclude(campaign, rows)


def _conclude(campaign: Campaign, rows: dict[str, dict[str, Any]]) -> int:
    executions, faults = read(campaign.system.journal), campaign.faults.done
    seen = merged(campaign.clients)
    found = list(stories(campaign.load.sent, executions, rows, seen))
    for story in found:
        judge(story, faults)
    happened = events(executions)
    times = [time_to_true(fault, happened, (campaign.rows.turns, seen.turns)) for fault in faults]
    _keep(campaign, rows, seen.last)
    bad = report.bad(found)
    if bad:
        print(f"\nThe schedule:\n{report.schedule(faults, campaign.since)}\n")
        print("\n\n".join(report.three_views(story, campaign.since) for story in bad[:20]))
    print(f"\n{report.table(faults, found, times)}\n")
    print(f"seed {campaign.plan.seed}; logs in {campaign.system.folder}")
    return 1 if bad else 0


def _keep(campaign: Campaign, *ledgers: dict[str, dict[str, Any]]) -> None:
    """What the verdict went by, beside the logs."""
    folder = campaign.system.folder
    for name, ledger in zip(("rows", "seen"), ledgers, strict=True):
        (folder / f"{name}.json").write_text(json.dumps(ledger, default=str, indent=1))
    (folder / "schedule").write_text(report.schedule(campaign.faults.done, campaign.since))
