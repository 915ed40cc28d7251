"""A worker that was silent for too long, and was taken for dead, tells that a run of it has ended."""

from __future__ import annotations

import pytest

from bridge.limits.answers import Answer, Ask, Parcel, Unacked
from tests.integration.limits.desk import MINUTE, Desk

FREE, LIMITED = "task|a|", "task|a| slots|a|"


def ask_of(lane: str) -> Ask:
    return Ask("run:1:0", "silent", lane, (1,) * (len(lane.split()) - 1), meta="{}")


def end(desk: Desk, ask: Ask, holder: str) -> None:
    """As a worker does, in one of two ways."""
    if ask.units:
        desk.scripts.release(ask.worker, holder, ask.lane)
    else:
        desk.scripts.end(ask.worker, [holder])


def begun(desk: Desk, lane: str) -> str:
    desk.declare(slots_a="1")
    answer = desk.scripts.admit(ask_of(lane))
    assert answer.word == "run"
    return answer.holder


def buried(desk: Desk) -> None:
    desk.later(MINUTE)
    assert desk.later(MINUTE).buried == 1


def elsewhere(desk: Desk, lane: str) -> Answer:
    """The message of the run is delivered to another worker."""
    parcel = Parcel(b"run:1:0", "queue", "{}", unacked=Unacked("unacked", "index", "tag"))
    ask = ask_of(lane)
    return desk.scripts.admit(Ask(ask.member, "other", lane, ask.units, meta="{}"), parcel)


@pytest.mark.parametrize("lane", [FREE, LIMITED])
def test_what_comes_back_of_a_run_that_has_ended_starts_nothing(lane: str, desk: Desk) -> None:
    holder = begun(desk, lane)
    buried(desk)
    end(desk, ask_of(lane), holder)
    assert elsewhere(desk, lane).word == "duplicate"


def test_a_run_that_waits_anew_waits_no_more(desk: Desk) -> None:
    holder = begun(desk, LIMITED)
    buried(desk)
    in_its_place = desk.ask(LIMITED).holder
    assert elsewhere(desk, LIMITED).word == "waiting"
    end(desk, ask_of(LIMITED), holder)
    desk.end(in_its_place)
    assert desk.granted() == []
    assert desk.ask(LIMITED).word == "run"


def test_a_run_that_is_granted_anew_leaves_its_slot_to_others(desk: Desk) -> None:
    holder = begun(desk, LIMITED)
    buried(desk)
    in_its_place = desk.ask(LIMITED).holder
    assert elsewhere(desk, LIMITED).word == "waiting"
    desk.end(in_its_place)
    assert desk.granted() == ["run:1:0"]
    assert desk.ask(LIMITED, member="next:1:0").word == "waiting"
    end(desk, ask_of(LIMITED), holder)
    assert desk.granted() == ["next:1:0"]
    assert elsewhere(desk, LIMITED).word == "duplicate"


@pytest.mark.parametrize("lane", [FREE, LIMITED])
def test_a_run_that_goes_on_elsewhere_is_left_alone(lane: str, desk: Desk) -> None:
    holder = begun(desk, lane)
    buried(desk)
    other = elsewhere(desk, lane).holder
    end(desk, ask_of(lane), holder)
    assert list(desk.scripts.holders("other")) == [other]
    assert elsewhere(desk, lane).word == "spare"


@pytest.mark.parametrize("lane", [FREE, LIMITED])
def test_a_run_that_others_began_since_and_lost_is_not_ended_by_who_had_it_before(
    lane: str, desk: Desk
) -> None:
    holder = begun(desk, lane)
    buried(desk)
    assert elsewhere(desk, lane).word == "run"
    buried(desk)
    desk.scripts.restore(ask_of(lane), holder)
    end(desk, ask_of(lane), holder)
    assert elsewhere(desk, lane).word == "run"


@pytest.mark.parametrize("lane", [FREE, LIMITED])
def test_a_run_whose_message_goes_back_on_purpose_starts_again(lane: str, desk: Desk) -> None:
    holder = begun(desk, lane)
    assert desk.scripts.disown(holder)
    for _ in ("told", "told again, as the answer was lost"):
        desk.scripts.release("silent", holder, lane, is_over=False)
    assert elsewhere(desk, lane).word == "run"
