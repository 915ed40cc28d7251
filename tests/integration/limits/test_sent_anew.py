"""A message that comes again is told from one that was sent anew under the same id."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.limits.answers import Ask, Parcel, Unacked
from tests.integration.limits.desk import Desk

LANES = ["task|a|", "task|a| slots|a|"]


def meta(publication: str) -> str:
    return f'{{"id":"i","root":"r","n":1,"mirror":true,"p":"{publication * 16}"}}'


def ends(desk: Desk, ask: Ask, holder: str) -> None:
    if ask.units:
        desk.scripts.release(ask.worker, holder, ask.lane)
    else:
        desk.scripts.end(ask.worker, [holder])


@pytest.mark.parametrize("lane", LANES)
def test_copies_start_nothing_after_the_end_and_what_is_sent_anew_starts(lane: str, desk: Desk) -> None:
    desk.declare(slots_a="1")
    first = Ask("run:1:0", "w", lane, (1,) * (len(lane.split()) - 1), meta=meta("a"))
    while_it_ran, afterwards = replace(first, meta=meta("b")), replace(first, meta=meta("c"))
    holder = desk.scripts.admit(first).holder
    assert desk.scripts.admit(while_it_ran).word == "spare"
    kept = Parcel(b"message", "queue", while_it_ran.meta, unacked=Unacked("unacked", "index", "tag"))
    assert desk.scripts.spare(first.member, kept)
    ends(desk, first, holder)
    assert [desk.scripts.admit(each).word for each in (first, while_it_ran)] == ["duplicate"] * 2
    answer = desk.scripts.admit(afterwards)
    assert answer.word == "run"
    ends(desk, first, answer.holder)
    assert desk.scripts.admit(afterwards).word == "duplicate"


def test_whose_publisher_tells_nothing_is_taken_for_a_copy(desk: Desk) -> None:
    desk.declare(slots_a="1")
    told, untold = Ask("run:1:0", "w", LANES[1], (1,), meta=meta("a")), Ask("run:1:0", "w", LANES[1], (1,))
    for first, second in ((untold, told), (told, untold)):
        ends(desk, first, desk.scripts.admit(first).holder)
        assert desk.scripts.admit(second).word == "duplicate"
        desk.later(int(timedelta(hours=1).total_seconds() * 1000))
        desk.redis.delete(f"{desk.scripts.root}run:{first.member}")
