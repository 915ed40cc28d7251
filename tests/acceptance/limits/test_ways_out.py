"""Every way out of a run frees its slot, once, and at once: the worker lives, and no lease has to run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge.settings import BridgeSettings, LimitSettings, OutboxSettings
from tests.acceptance.leftovers import forget
from tests.acceptance.limits.conftest import GRANT, LEASE
from tests.acceptance.limits.fleet import Fleet, Server
from tests.acceptance.limits.state import Books, Sender
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("limits") / "redis")
    yield started
    started.end()


@pytest.fixture(scope="module")
def settings(server: Server) -> BridgeSettings:
    return BridgeSettings(
        outbox=OutboxSettings(redis_url=server.url, prefix="test", partitions=2),
        limits=LimitSettings(lease=LEASE, grant=GRANT),
    )


class Crew:
    """One prefork worker for all these tests, but another one after a test that has failed."""

    def __init__(self, settings: BridgeSettings, folders: pytest.TempPathFactory) -> None:
        self._settings, self._folders = settings, folders
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet(self._settings, self._folders.mktemp("limits"))
            self._fleet.start()
        return self._fleet

    def end(self) -> None:
        if self._fleet is not None:
            self._fleet.end()
            self._fleet = None
            forget(self._settings)


@pytest.fixture(scope="module")
def crew(settings: BridgeSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    made = Crew(settings, tmp_path_factory)
    yield made
    made.end()


@pytest.fixture
def fleet(crew: Crew, books: Books, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Afterwards nothing is left, there was never more than one, and nothing had to be put right."""
    fleet, name = crew.fleet(), request.node.name
    yield fleet
    try:
        for held in (name, f"{name}-never"):
            fleet.go(held)
        wait_until(books.is_idle, "all slots are free and nobody waits")
        assert fleet.ledger.most() == 1
        assert "that nobody here uses is free again" not in fleet.output()
        assert "holds its slot again" not in fleet.output()
        assert "failed at" not in fleet.output()
    except AssertionError:
        crew.end()
        raise


@pytest.fixture
def leave(
    fleet: Fleet, sender: Sender, books: Books, request: pytest.FixtureRequest
) -> Callable[..., tuple[str, str]]:
    """Has a run of a task execute between two others that need the same slot; waits until all have left."""
    name = request.node.name

    def leaves(task: str, *args: object, then: Callable[[str], object] = lambda _: None) -> tuple[str, str]:
        before = sender.send("hold", name)
        wait_until(lambda: before in fleet.ledger.executing(), "the first run executes")
        run = sender.send(task, *args)
        wait_until(lambda: books.waiting() == 1, "the run waits")
        after = sender.send("fine")
        wait_until(lambda: books.waiting() == 2, "another waits behind it")
        fleet.go(name)
        wait_until(lambda: fleet.ledger.of(run), f"{task} executes")
        then(run)
        wait_until(lambda: fleet.ledger.ends()[after], "the run after it has its slot")
        wait_until(books.is_idle, "all slots are free and nobody waits")
        return run, after

    return leaves


@pytest.mark.parametrize(
    ("task", "state", "times"),
    [
        ("fine", "SUCCESS", 1),
        ("broken", "FAILURE", 1),
        ("ignored", "PENDING", 1),
        ("rejected", "FAILURE", 1),
        ("passed_on", "SUCCESS", 2),
        ("acked_early", "SUCCESS", 1),
        ("lost", "FAILURE", 1),
        ("lost_acked_early", "FAILURE", 1),
        ("lost_once", "SUCCESS", 2),
        ("exits", "FAILURE", 1),
        ("too_slow", "FAILURE", 1),
        ("deaf", "FAILURE", 1),
        ("slow_once", "SUCCESS", 2),
    ],
)
def test_a_way_out_frees_the_slot(
    task: str,
    state: str,
    times: int,
    leave: Callable[..., tuple[str, str]],
    fleet: Fleet,
    sender: Sender,
) -> None:
    run, after = leave(task)
    wait_until(lambda: len(fleet.ledger.of(run)) == times, f"it executes {times} times")
    wait_until(lambda: sender.state(run) == state, f"its state is {state}")
    assert len(fleet.ledger.of(after)) == 1


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_a_terminated_run_frees_the_slot(
    signal: str,
    leave: Callable[..., tuple[str, str]],
    fleet: Fleet,
    sender: Sender,
    request: pytest.FixtureRequest,
) -> None:
    def terminate(run: str) -> None:
        sender.app.control.revoke(run, terminate=True, signal=signal)

    run, after = leave("hold", f"{request.node.name}-never", then=terminate)
    wait_until(lambda: sender.state(run) == "REVOKED", "its state is REVOKED")
    assert fleet.ledger.of(after)[0].since > fleet.ledger.of(run)[0].until


def test_a_countdown_to_the_next_attempt_holds_no_slot(
    leave: Callable[..., tuple[str, str]], fleet: Fleet, sender: Sender
) -> None:
    run, after = leave("again", 2.0)
    [between] = fleet.ledger.of(after)
    wait_until(lambda: fleet.ledger.ends()[run], "the next attempt ends")
    first, second = fleet.ledger.of(run)
    assert first.until < between.since < between.until < second.since
    wait_until(lambda: sender.state(run) == "SUCCESS", "its state is SUCCESS")


def test_a_hard_time_limit_frees_the_slot_only_when_the_process_is_dead(
    leave: Callable[..., tuple[str, str]], fleet: Fleet
) -> None:
    fleet.start()  # the worker that waits for its process to die starts nobody meanwhile; others would
    run, after = leave("deaf")
    [killed], [next_one] = fleet.ledger.of(run), fleet.ledger.of(after)
    assert not killed.end
    assert fleet.has(f"asked-{run}")  # it did not mind the SIGTERM
    assert next_one.since > killed.until
