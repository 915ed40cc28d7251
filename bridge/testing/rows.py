"""The rows of runs in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bridge.events import FINAL_STATUSES, Patch
from bridge.rows import Announcement, Mirrored
from bridge.testing.merging import (
    PLACE,
    PROGRESS,
    STATE,
    Row,
    announcement,
    bump,
    merged,
    new_lines,
    quotient,
    refusal,
    share,
)

_DEPTH: Final = 16


class MemoryRows:
    """Rows by the same rules as the SQL function `mirror_runs`; `rows` and `logs` are by run id."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.logs: dict[str, list[Row]] = {}

    async def mirror(self, batch: Sequence[Patch]) -> list[Mirrored]:
        return [self._mirror(patch) for patch in batch]

    async def snapshots(self, run_ids: Sequence[str]) -> list[Announcement]:
        return [announcement(self.rows[run_id]) for run_id in run_ids if run_id in self.rows]

    async def check(self) -> None:
        pass

    def _mirror(self, patch: Patch) -> Mirrored:
        before = self.rows.get(patch.run_id)
        if patch.attempt == 0 and before is not None:  # whichever attempt it is
            patch = replace(patch, attempt=before["attempt"])
        reason = refusal(before, patch)
        if reason == "duplicate" and before is not None:
            parents = [announcement(row) for row in self._ancestors(before)]
            return Mirrored(patch.run_id, reason, announcement(before), parents=parents)
        if reason is not None:
            return Mirrored(patch.run_id, reason)
        row = merged(before, patch)
        if before is None:
            self._adopt(row)
        old = before or {"progress": 0}
        state_changed = before is None or any(row[name] != old.get(name) for name in STATE)
        told = PROGRESS if state_changed else (*PROGRESS, *PLACE)
        progress_changed = row["status"] in FINAL_STATUSES or any(row[name] != old.get(name) for name in told)
        if state_changed or progress_changed:
            bump(row)
        lines = new_lines(before, row, patch)
        self.logs.setdefault(patch.run_id, []).extend(lines)
        self.rows[patch.run_id] = row
        current = announcement(row)
        parents = self._add_up(before, row)
        return Mirrored(patch.run_id, "applied", current, state_changed, progress_changed, lines, parents)

    def _adopt(self, row: Row) -> None:
        children = [each for each in self.rows.values() if each["parent_id"] == row["id"]]
        row["parts_total"] = sum(child["parts"] for child in children)
        row["parts_progress"] = sum(share(child) for child in children)
        if row["parts_total"] and row["current"] is None and row["status"] not in FINAL_STATUSES:
            row["progress"] = min(100, row["parts_progress"] // row["parts_total"])

    def _ancestors(self, row: Row) -> Iterator[Row]:
        for _ in range(_DEPTH):
            parent = row["parent_id"]
            above = self.rows.get(parent) if isinstance(parent, str) else None
            if above is None:
                return
            yield above
            row = above

    def _add_up(self, before: Row | None, child: Row) -> list[Announcement]:
        joins = before is None or before["parent_id"] is None
        old: Row = before or {}
        parts = child["parts"] if joins else 0
        delta = share(child) - (0 if joins else share(old))
        said = {name: child[name] for name in ("message", "step") if child[name] not in (None, old.get(name))}
        changed: list[Announcement] = []
        for parent in self._ancestors(child):
            if not (parts or delta or said) or parent["status"] in FINAL_STATUSES:
                break
            was = dict(parent)
            parent["parts_total"] += parts
            parent["parts_progress"] += delta
            if parent["parts_total"] > 0 and parent["current"] is None and (parts or delta):
                parent["progress"] = max(
                    0, min(100, quotient(parent["parts_progress"], parent["parts_total"]))
                )
            parent.update(said)
            if any(parent[name] != was[name] for name in ("progress", "message", "step")):
                bump(parent)
                changed.append(announcement(parent))
            parts, delta = 0, parent["progress"] - was["progress"]
        return changed
