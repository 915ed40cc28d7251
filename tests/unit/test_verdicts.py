"""What a row says against where its run was seen, and how often that has to be found."""

from __future__ import annotations

from uuid import uuid4

import pytest

from bridge.events import run_uuid
from bridge.reaper.quiet import QuietRun
from bridge.reaper.verdicts import Suspicions, Verdict, verdict_on
from bridge.reaper.whereabouts import Place, Whereabouts

LOST, STALLED, QUEUED, WAITING = Verdict.WORKER_LOST, Verdict.STALLED, Verdict.QUEUED, Verdict.WAITING
STATUSES = ("scheduled", "queued", "waiting", "in_progress", "retrying", "cancelling")


def run(status: str) -> QuietRun:
    run_id = str(uuid4())
    return QuietRun(run_id, run_id, "io", "tasks.a", status, attempt=1, version=7)


def judged(status: str, place: Place | None, comes_back: bool = True, **known: bool) -> Verdict | None:
    one = run(status)
    seen = Whereabouts(**{"knows_workers": True, "knows_messages": True, **known})
    if place is not None:
        seen.note(one.run_id, place)
    return verdict_on(one, seen, comes_back)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (None, (STALLED, STALLED, STALLED, LOST, STALLED, LOST)),
        (Place.QUEUED, (None, None, QUEUED, QUEUED, None, QUEUED)),
        (Place.WAITING, (WAITING, WAITING, None, QUEUED, WAITING, QUEUED)),
        (Place.KEPT, (None,) * 6),
    ],
)
def test_a_row_is_wrong_where_its_run_is_elsewhere(
    place: Place | None, expected: tuple[Verdict | None, ...]
) -> None:
    assert tuple(judged(status, place) for status in STATUSES) == expected


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_a_broker_may_still_hold_is_not_lost(comes_back: bool) -> None:
    """Where its queues cannot be looked into, as with RabbitMQ, only what executes is known to be nowhere."""
    lost = QUEUED if comes_back else LOST
    found = tuple(judged(status, None, comes_back, knows_messages=False) for status in STATUSES)
    assert found == (None, None, None, lost, None, lost)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("place", [None, *Place])
def test_nothing_is_judged_by_a_redis_that_workers_tell_nothing(status: str, place: Place | None) -> None:
    assert judged(status, place, knows_workers=False) is None


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([Place.QUEUED, Place.KEPT], Place.KEPT),
        ([Place.WAITING, Place.QUEUED], Place.WAITING),
        ([Place.WAITING, Place.KEPT], Place.KEPT),
        ([Place.KEPT, Place.QUEUED], Place.KEPT),
    ],
)
def test_who_keeps_a_run_counts_more_than_a_copy_of_its_message(places: list[Place], expected: Place) -> None:
    seen, task_id = Whereabouts(), str(uuid4())
    for place in places:
        seen.note(task_id, place)
    assert seen.of(task_id) is expected


def test_a_run_is_found_by_the_id_of_its_row_whatever_its_task_id() -> None:
    seen = Whereabouts()
    seen.note("nightly", Place.QUEUED)
    assert seen.of(run_uuid("nightly")) is Place.QUEUED


def test_a_finding_counts_once_it_was_made_twice_far_enough_apart() -> None:
    suspicions: Suspicions[str, int] = Suspicions(apart=2)
    assert [suspicions.look({"a": 1}, now) for now in (0, 1, 1.9)] == [{}, {}, {}]
    assert suspicions.look({"a": 1}, 2) == {"a": 0}


@pytest.mark.parametrize("between", [{}, {"a": 2}])
def test_a_finding_that_was_not_made_in_between_starts_over(between: dict[str, int]) -> None:
    suspicions: Suspicions[str, int] = Suspicions(apart=2)
    suspicions.look({"a": 1}, 0)
    suspicions.look(between, 1)
    assert suspicions.look({"a": 1}, 2) == {}
    assert suspicions.look({"a": 1}, 4) == {"a": 0}


def test_what_counts_counts_again_if_it_is_not_mended_until_then() -> None:
    suspicions: Suspicions[str, int] = Suspicions(apart=2)
    counted = [suspicions.look({"a": 1}, now) for now in range(6)]
    assert counted == [{}, {}, {"a": 0}, {}, {"a": 1}, {}]
