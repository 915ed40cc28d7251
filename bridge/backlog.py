"""What a process keeps of run events while the outbox is away: bounded by runs, last states first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bridge.events import Patch, fold
from bridge.outbox import Entry

LINES_KEPT: Final = 200
"""Log lines of one run that outlive a squeeze; the oldest go first."""


def squeezed(entries: Sequence[Entry], room: int) -> list[Entry]:
    """The same events in fewer entries, at most `room`.

    First neighbours are folded, which loses nothing; then one entry is kept of each run, its last
    state; then the runs told of longest ago are dropped, those that are not final before the others.
    """
    folded = _folded(entries)
    if len(folded) > room:
        folded = _one_each(folded)
    excess = len(folded) - room
    if excess > 0:
        order = sorted(range(len(folded)), key=lambda place: folded[place][1].is_final)
        dropped = set(order[:excess])
        folded = [entry for place, entry in enumerate(folded) if place not in dropped]
    return folded


def _folded(entries: Iterable[Entry]) -> list[Entry]:
    entries = list(entries)
    roots = {patch.run_id: root for root, patch in entries}
    folded = fold(patch for _, patch in entries)
    for patch in folded:
        del patch.logs[:-LINES_KEPT]
    return [(roots[patch.run_id], patch) for patch in folded]


def _one_each(entries: Iterable[Entry]) -> list[Entry]:
    latest: dict[str, Entry] = {}
    for root, patch in entries:
        earlier = latest.pop(patch.run_id, None)  # popped, so that who was told of last stands last
        latest[patch.run_id] = (root, patch if earlier is None else _overtaken(earlier[1], patch))
    return list(latest.values())


def _overtaken(earlier: Patch, later: Patch) -> Patch:
    """Both in one, by the rules of the row: final is final, an older attempt changes nothing."""
    if earlier.is_final or 0 < later.attempt < earlier.attempt:
        return earlier
    return Patch(
        later.run_id,
        max(earlier.attempt, later.attempt),
        later.at,
        {**earlier.fields, **later.fields},
        [*earlier.logs, *later.logs][-LINES_KEPT:],
        fresh=later.fresh and (earlier.fresh or earlier.attempt < later.attempt),
        existing=earlier.existing and later.existing,
        parts=earlier.parts,
    )
