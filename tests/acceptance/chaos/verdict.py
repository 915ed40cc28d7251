"""Compares the three ledgers: which runs are lost, doubled or wrong, and which were done again."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from bridge.events import FINAL_STATUSES
from tests.acceptance.chaos.faults import Fault
from tests.acceptance.chaos.journal import Execution, now
from tests.acceptance.chaos.kinds import Kind, Sent
from tests.acceptance.chaos.views import SHOWN, Turn, Views

LOST, DOUBLED, WRONG, AGAIN, TOLD = "lost", "doubled", "wrong", "again", "told"
BAD: Final = (LOST, DOUBLED, WRONG)
TAKES_MESSAGES: Final = frozenset(("worker-kill", "redis-kill", "redis-stop", "redis-cut", "redis-dead"))
LOST_WITHIN = 3.0
"""Seconds after the last that was heard of a run within which its next message may be lost with a fault."""

DEATHS: Final = frozenset(("worker-kill", "child-kill"))
LEASE_LASTS = 1.0
"""Seconds for which a worker keeps its leases for sure without Redis: half a lease, less a renewal."""

ACKED_WITHIN = 1.0
"""Seconds after the end of a body within which a fault may still keep its worker from telling of it."""

_CLOCKS_AGREE: Final = 5.0
_SAME: Final = tuple(name for name in SHOWN if name != "parent_id")
_JOINED: Final = ("gather", 0)
_PART = Kind("part", "completed", {("part", 0): "end"}, returns=1)


@dataclass
class Story:
    """One run by all three ledgers."""

    sent: Sent
    kind: Kind
    run: str
    result: int | None
    executions: list[Execution]
    row: Mapping[str, Any] | None
    seen: Mapping[str, Any] | None
    turns: Sequence[Turn] = ()  # as the client saw it
    findings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def until(self) -> float:
        """When its last body was heard of last."""
        return max((each.until for each in self.executions), default=self.sent.at)

    def has(self, *what: str) -> bool:
        return any(name in what for name, _ in self.findings)


def stories(
    sent: Sequence[Sent],
    executions: Sequence[Execution],
    rows: Mapping[str, Mapping[str, Any]],
    seen: Views,
) -> Iterator[Story]:
    """Each run that was sent, and each part that it made."""
    by_run: dict[str, list[Execution]] = defaultdict(list)
    parts: dict[str, set[str]] = defaultdict(set)
    for each in executions:
        by_run[each.run].append(each)
        if each.parent:
            parts[each.parent].add(each.run)
    for run, row in rows.items():
        if row["parent_id"]:
            parts[row["parent_id"]].add(run)
    for one in sent:
        runs = [(one.run, one.expected, one.result)]
        runs += [(run, _PART, one.beats) for run in parts[one.run]]
        for run, kind, result in runs:
            shown = seen.last.get(run), seen.turns.get(run, ())
            yield Story(one, kind, run, result, by_run[run], rows.get(run), *shown)


def judge(story: Story, faults: Sequence[Fault]) -> None:
    """Note what is bad about a run, and what is worth counting."""
    story.findings = list(_findings(story, faults))


def _findings(story: Story, faults: Sequence[Fault]) -> Iterator[tuple[str, str]]:
    if story.sent.doubtful and story.row is None and not story.executions:
        return  # it was refused, and never was
    if story.row is None:
        yield LOST, "it has no row"
        return
    status = story.row["status"]
    if status not in FINAL_STATUSES:
        yield LOST, f"its row is left {status}"
        return
    told = _told_of_loss(story, faults)
    if told:
        yield TOLD, f"it failed with {story.row['error_code']}, and so it is told"
    else:
        yield from _missing(story)
        yield from _wrong_row(story)
    yield from _wrong_times(story)
    yield from _twice(story, faults)
    yield from _unseen(story)


def _told_of_loss(story: Story, faults: Sequence[Fault]) -> bool:
    """What was to come next never started, its row says so, and a fault explains it.

    A dispatch that failed, also that of a chord's body by its last part; a body that Celery fails, as its
    last part found no Redis to join the others in; or a message that a worker had taken when it was killed,
    or that Redis had given away when the connection broke: Celery's Redis transport notes it a moment after.
    """
    assert story.row is not None
    code = story.row["error_code"]
    started = {(each.task, each.level) for each in story.executions}
    if code == "publish_failed" and not started:
        return True
    never_came = story.kind.ends.keys() - started
    fails_body = code == "error" and never_came == {_JOINED}
    if not fails_body and (code not in ("stalled", "worker_lost", "publish_failed") or not never_came):
        return False
    return any(
        fault.kind in TAKES_MESSAGES and fault.overlaps(story.until, story.until + LOST_WITHIN)
        for fault in faults
    )


def _missing(story: Story) -> Iterator[tuple[str, str]]:
    ends = {(each.task, each.level): each.end for each in story.executions if each.end}
    for (task, level), end in story.kind.ends.items():
        left = {each.end for each in story.executions if (each.task, each.level) == (task, level)}
        if end not in left:
            yield (
                LOST,
                f"{task} was to leave with {end}, try {level + 1}, and left with {left or 'nothing'}",
            )
    for task, level in ends.keys() - story.kind.ends.keys():
        yield WRONG, f"{task} was executed at attempt {level + 1}, which was not to be"


def _wrong_row(story: Story) -> Iterator[tuple[str, str]]:
    assert story.row is not None
    kind, row = story.kind, story.row
    expected = {"status": kind.status, "error_code": kind.code, "result": story.result}
    if kind.status == "completed":
        expected["progress"] = 100
    for name, value in expected.items():
        if row[name] != value:
            yield WRONG, f"its row has {name} {row[name]!r}, not {value!r}"


def _wrong_times(story: Story) -> Iterator[tuple[str, str]]:
    """Whatever a worker's clock says."""
    assert story.row is not None
    wall = time.time() - now()
    earliest, latest = story.sent.at + wall - _CLOCKS_AGREE, now() + wall + _CLOCKS_AGREE
    for name in ("created_at", "started_at", "finished_at"):
        told = story.row[name]
        if told is not None and not earliest <= datetime.fromisoformat(told).timestamp() <= latest:
            yield WRONG, f"its row has {name} {told}"


def _twice(story: Story, faults: Sequence[Fault]) -> Iterator[tuple[str, str]]:
    done: dict[tuple[str, int], list[Execution]] = defaultdict(list)
    for each in story.executions:
        if each.end == story.kind.ends.get((each.task, each.level)):
            done[each.task, each.level].append(each)
    for (task, level), found in done.items():
        for before in found[:-1]:
            if _is_excused(before, faults):
                yield AGAIN, f"{task} was done again, attempt {level + 1}: a fault hit {before.worker}"
            else:
                yield DOUBLED, f"{task} came to its end twice, attempt {level + 1}, and no fault explains it"


def _is_excused(done: Execution, faults: Sequence[Fault]) -> bool:
    """Its worker died, or was away for so long that its lease may be over, before its end could be acked."""
    return any(
        done.worker in fault.places
        and fault.overlaps(done.since, done.until + ACKED_WITHIN)
        and (fault.kind in DEATHS or (fault.kind != "clock" and fault.end - fault.begin > LEASE_LASTS))
        for fault in faults
    )


def _unseen(story: Story) -> Iterator[tuple[str, str]]:
    assert story.row is not None
    if story.seen is None:
        yield WRONG, "the client never saw it"
        return
    if story.sent.kind == "checkpointed" and any(
        later.progress < before.progress for before, later in pairwise(story.turns)
    ):
        yield WRONG, f"its bar fell back: {[turn.progress for turn in story.turns]}"
    for name in _SAME:
        if story.seen[name] != story.row[name]:
            yield WRONG, f"the client sees {name} {story.seen[name]!r}, the row has {story.row[name]!r}"
