"""Runs that are revoked after their body's last line: row, result and who waits for it agree, for good."""

from __future__ import annotations

import signal as signal_numbers
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from celery.result import AsyncResult

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import Keys, Post
from tests.database import final_rows, rows
from tests.processes import Process, bridge
from tests.waiting import wait_until

APP = "tests.acceptance.restarts.endings"
STATUS = {"SUCCESS": "completed", "FAILURE": "failed", "REVOKED": "cancelled"}
ENDS = {"returns": "SUCCESS", "raises": "FAILURE"}


@pytest.fixture(scope="module", autouse=True)
def mirror(settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with bridge(settings, tmp_path_factory.mktemp("bridge"), APP) as process:
        yield process


@pytest.fixture
def fleet(settings: BridgeSettings, tmp_path: Path) -> Iterator[Fleet]:
    """Workers to be started by the test."""
    made = Fleet(settings, tmp_path, app=APP)
    yield made
    made.end()


class Waited:
    """A run whose end app code waits for."""

    def __init__(self, post: Post, stack: RunningStack, run: str) -> None:
        self.run, self._stack, self._app = run, stack, post.app
        self._result: AsyncResult[object] = post.app.AsyncResult(run)
        self._thread = ThreadPoolExecutor(1)
        self._seen: Future[str] = self._thread.submit(self._wait)

    def _wait(self) -> str:
        self._result.get(timeout=60, propagate=False)
        return str(self._result.state)

    def now(self) -> tuple[str, str]:
        """What the backend says, and what the row shows: a state of Celery's once it is final."""
        status = rows(self._stack, [self.run])[self.run]["status"]
        shown = next((state for state, final in STATUS.items() if final == status), status)
        return str(self._app.AsyncResult(self.run).state), shown

    def end(self) -> tuple[str, str, str]:
        """What it saw, what the backend says, and what the row shows, as states of Celery's."""
        final_rows(self._stack, [self.run])
        seen = self._seen.result()
        self._thread.shutdown()
        return seen, *self.now()


def send(post: Post, kind: str, moment: str) -> str:
    return str(post.app.send_task(f"{APP}.{kind}", (moment,)).id)


def revoke(post: Post, run: str, signal: str | None, heard: int) -> None:
    """Revoke it, and wait until so many workers have heard of it."""
    replies = post.app.control.revoke(
        run, terminate=signal is not None, signal=signal or "SIGTERM", reply=True, limit=heard, timeout=10
    )
    assert len(replies) == heard, replies


# Nothing is killed, nor stopped, in a worker's main process; a greenlet is, wherever it waits.
PROCESSES: list[str | None] = [None, "SIGTERM", "SIGKILL"]
HERE: list[str | None] = [None, "SIGTERM"]


@pytest.mark.parametrize(
    ("pool", "moment", "signals", "stopped"),
    [
        ("prefork", "before", PROCESSES, {"SIGKILL"}),
        ("prefork", "after", PROCESSES, set()),
        ("threads", "before", HERE, set()),
        ("threads", "after", HERE, set()),
        ("gevent", "before", HERE, {"SIGTERM"}),
        ("gevent", "after", HERE, set()),
        ("solo", "before", HERE[:1], set()),
    ],
)
def test_what_is_told_of_a_run_that_was_revoked_as_it_ended_is_the_same_everywhere(
    pool: str, moment: str, signals: list[str | None], stopped: set[str],
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, tmp_path: Path,
) -> None:  # fmt: skip
    """Another worker, which knows nothing of the runs, hears of their revocation as well."""
    kinds = list(ENDS)[: 1 if pool == "solo" else 2]
    cases = [(signal, kind) for signal in signals for kind in kinds]
    fleet.start(pool, len(cases))
    waited = {case: Waited(post, stack, send(post, case[1], moment)) for case in cases}
    wait_until(lambda: all((tmp_path / f"at-{each.run}").exists() for each in waited.values()), "they linger")
    fleet.start("threads", 1)
    for (signal, _), each in waited.items():
        revoke(post, each.run, signal, heard=1 if pool == "solo" else 2)
    fleet.go(moment)
    ends = {case: each.end() for case, each in waited.items()}
    assert ends == {
        (signal, kind): ("REVOKED" if signal in stopped else ENDS[kind],) * 3 for signal, kind in cases
    }
    after = send(post, "returns", "")
    assert final_rows(stack, [after])[after]["status"] == "completed"
    assert {case: each.now() for case, each in waited.items()} == {case: ends[case][1:] for case in cases}
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")


def test_a_run_is_cancelled_once_it_has_stopped_and_completes_if_it_goes_on(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, tmp_path: Path
) -> None:
    fleet.start("prefork", 2)
    tidies, goes_on = (Waited(post, stack, send(post, kind, "end")) for kind in ("tidies", "goes_on"))
    for each in (tidies, goes_on):
        wait_until((tmp_path / f"at-{each.run}").exists, "it executes")
        revoke(post, each.run, "SIGTERM", heard=1)
        wait_until((tmp_path / f"stops-{each.run}").exists, "it was told to stop")
        assert each.now() == ("PENDING", "in_progress")
    fleet.go("end")
    assert tidies.end() == ("REVOKED",) * 3
    assert goes_on.end() == ("SUCCESS",) * 3
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")


def test_a_run_that_is_about_to_stop_as_its_worker_is_stopped_coldly_is_not_executed_again(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, tmp_path: Path
) -> None:
    worker = fleet.start("prefork", 1)
    run = Waited(post, stack, send(post, "tidies", "end"))
    wait_until((tmp_path / f"at-{run.run}").exists, "it executes")
    revoke(post, run.run, "SIGTERM", heard=1)
    wait_until((tmp_path / f"stops-{run.run}").exists, "it was told to stop")
    worker.process.end(signal_numbers.SIGQUIT)
    fleet.go("end")
    fleet.start("prefork", 1)
    assert run.end() == ("REVOKED",) * 3
    after = send(post, "returns", "")
    assert final_rows(stack, [after])[after]["status"] == "completed"
    assert len(fleet.ledger.of(run.run)) == 1
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")


def test_a_run_whose_process_was_killed_once_its_result_was_stored_is_completed(
    fleet: Fleet, post: Post, books: Keys, stack: RunningStack, tmp_path: Path, mirror: Process
) -> None:
    """By somebody else, such as the kernel; no reaper is needed to tell the row."""
    worker = fleet.start("prefork", 1)
    run = Waited(post, stack, send(post, "returns", "after"))
    wait_until((tmp_path / f"at-{run.run}").exists, "it lingers")
    worker.kill("child", worker.pool())
    assert run.end() == ("SUCCESS",) * 3
    assert run.run not in mirror.output(), "the reaper did not mend it"
    wait_until(lambda: not books.leftovers() and books.is_idle(), "no slot and no lease is left")
    assert len(fleet.ledger.of(run.run)) == 1
