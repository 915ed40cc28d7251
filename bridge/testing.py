"""In-memory twins of the outside systems, for tests of applications and of the bridge itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from bridge.checkpoint import Checkpoint, Kept
from bridge.events import FINAL_STATUSES, Patch, fold, version_of
from bridge.messages import Message
from bridge.outbox import Entry
from bridge.rows import Announcement, Mirrored, Snapshot

Row = dict[str, Any]

_IDENTITY: Final = (
    "task", "queue", "user_id", "input_file", "channel", "parent_id", "root_id", "metadata", "tags",
    "max_attempts", "created_at", "started_at",
)  # fmt: skip
_WRITABLE: Final = frozenset(_IDENTITY) | {
    "status", "state", "progress", "current", "total", "step", "message", "wait_reason", "queue_position",
    "result", "result_url", "error_code", "error_message", "cancel_requested_at",
}  # fmt: skip
_STATE: Final = (
    "status", "state", "task", "attempt", "max_attempts", "result", "error_code", "error_message",
    "parent_id", "started_at", "finished_at",
)  # fmt: skip
_PROGRESS: Final = ("progress", "current", "total", "message", "step", "result_url")
_PLACE: Final = ("wait_reason", "queue_position")
_SNAPSHOT: Final = (
    "task", "status", "state", "progress", "current", "total", "step", "message", "attempt", "max_attempts",
    "wait_reason", "queue_position", "result", "result_url", "error_code", "error_message", "parent_id",
    "seq", "created_at", "started_at", "finished_at",
)  # fmt: skip
_OPENING: Final = ("scheduled", "queued", "retrying")
_NOT_STARTED: Final = (*_OPENING, "waiting")
_DEPTH: Final = 16


class MemoryOutbox:
    """An outbox that keeps everything in a list."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self._kept: dict[tuple[str, int], Kept] = {}
        self._taken: dict[str, Checkpoint] = {}

    def append(self, entries: Sequence[Entry]) -> None:
        for _, patch in entries:
            self._note_told(patch)
            kept = deepcopy(patch)
            kept.version = version_of(f"{len(self.patches) + 1}-0")
            for line in kept.logs:
                line.version = kept.version
            self.patches.append(kept)

    def fullness(self) -> float:
        return 0.0

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        key = checkpoint.run_id, checkpoint.nesting
        kept = self._kept.get(key, Kept())
        self._kept[key] = replace(kept, turn=kept.turn + 1)
        self._taken[checkpoint.run_id] = checkpoint
        return self._kept[key]

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        key = checkpoint.run_id, checkpoint.nesting
        if self._kept.get(key, Kept()).turn > checkpoint.turn:
            return False
        self._kept[key] = Kept(checkpoint.turn, checkpoint.state, checkpoint.told)
        return True

    def _note_told(self, patch: Patch) -> None:
        checkpoint = self._taken.get(patch.run_id)
        if checkpoint is None or checkpoint.attempt != patch.attempt or "current" not in patch.fields:
            return
        key = checkpoint.run_id, checkpoint.nesting
        if self._kept[key].turn == checkpoint.turn:
            told = patch.fields["current"], patch.fields.get("total")
            self._kept[key] = replace(self._kept[key], told=told)

    async def publish(self, rows: MemoryRows) -> list[Mirrored]:
        """Write all that was appended so far into `rows`, as a bridge would."""
        return await rows.mirror(fold(deepcopy(self.patches)))


class MemoryBroadcast:
    """Keeps what was broadcast, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, messages: Sequence[Message]) -> None:
        self.messages.extend(messages)

    def payloads(self, topic: str, event: str = "progress") -> list[dict[str, Any]]:
        """What a listener of `topic` was told as `event`."""
        heard = [each for each in self.messages if (each.topic, each.event) == (topic, event)]
        return [json.loads(each.payload) for each in heard]


class MemoryRows:
    """Rows by the same rules as the SQL function `mirror_runs`; `rows` and `logs` are by run id."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.logs: dict[str, list[Row]] = {}

    async def mirror(self, batch: Sequence[Patch]) -> list[Mirrored]:
        return [self._mirror(patch) for patch in batch]

    async def snapshots(self, run_ids: Sequence[str]) -> list[Announcement]:
        return [_announcement(self.rows[run_id]) for run_id in run_ids if run_id in self.rows]

    async def check(self) -> None:
        pass

    def _mirror(self, patch: Patch) -> Mirrored:
        before = self.rows.get(patch.run_id)
        if patch.attempt == 0 and before is not None:  # whichever attempt it is
            patch = replace(patch, attempt=before["attempt"])
        refusal = _refusal(before, patch)
        if refusal == "duplicate" and before is not None:
            parents = [_announcement(row) for row in self._ancestors(before)]
            return Mirrored(patch.run_id, refusal, _announcement(before), parents=parents)
        if refusal is not None:
            return Mirrored(patch.run_id, refusal)
        row = _merged(before, patch)
        if before is None:
            self._adopt(row)
        old = before or {"progress": 0}
        state_changed = before is None or any(row[name] != old.get(name) for name in _STATE)
        told = _PROGRESS if state_changed else (*_PROGRESS, *_PLACE)
        progress_changed = row["status"] in FINAL_STATUSES or any(row[name] != old.get(name) for name in told)
        if state_changed or progress_changed:
            _bump(row)
        lines = _new_lines(before, row, patch)
        self.logs.setdefault(patch.run_id, []).extend(lines)
        self.rows[patch.run_id] = row
        current = _announcement(row)
        parents = self._add_up(before, row)
        return Mirrored(patch.run_id, "applied", current, state_changed, progress_changed, lines, parents)

    def _adopt(self, row: Row) -> None:
        children = [each for each in self.rows.values() if each["parent_id"] == row["id"]]
        row["parts_total"] = sum(child["parts"] for child in children)
        row["parts_progress"] = sum(_share(child) for child in children)
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
        delta = _share(child) - (0 if joins else _share(old))
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
                    0, min(100, _quotient(parent["parts_progress"], parent["parts_total"]))
                )
            parent.update(said)
            if any(parent[name] != was[name] for name in ("progress", "message", "step")):
                _bump(parent)
                changed.append(_announcement(parent))
            parts, delta = 0, parent["progress"] - was["progress"]
        return changed


def _refusal(before: Row | None, patch: Patch) -> str | None:
    if before is None:
        return "unknown" if patch.existing else None
    if patch.expected is not None and patch.expected != before["version"] < patch.version:
        return "stale"
    if patch.attempt < before["attempt"]:
        return "stale"
    if patch.attempt == before["attempt"] and patch.version <= before["version"]:
        return "duplicate"
    if before["status"] in FINAL_STATUSES:
        return "final"
    return "stale" if _is_late_place(before, patch) else None


def _is_late_place(before: Row, patch: Patch) -> bool:
    """Whether this tells a place in line only, of an attempt that does not wait."""
    is_place = bool(patch.fields) and not patch.logs and patch.fields.keys() <= set(_PLACE)
    return is_place and (before["status"] != "waiting" or patch.attempt > before["attempt"])


def _merged(before: Row | None, patch: Patch) -> Row:
    base = before or _blank(patch)
    row = dict(base)
    row.update({name: value for name, value in patch.fields.items() if name in _WRITABLE})
    row["attempt"], row["version"] = patch.attempt, patch.version
    if row["parent_id"] == row["id"]:
        row["parent_id"] = None
    for name in _IDENTITY:
        row[name] = base[name] if base[name] is not None else row[name]
    if row["max_attempts"] is not None:
        row["max_attempts"] = max(row["max_attempts"], row["attempt"])
    row["created_at"] = row["created_at"] or _iso(patch.at)
    row["status"] = row["status"] or base["status"]
    progress = row["progress"] if row["progress"] is not None else base["progress"]
    row["progress"] = max(0, min(100, progress))
    if base["parent_id"] is None:
        row["parts"] = patch.parts
    if before and _is_overtaken(before, row["status"], patch):
        row["status"], row["state"] = before["status"], before["state"]
    _settle(row, patch.at)
    return row


def _is_overtaken(before: Row, status: str, patch: Patch) -> bool:
    """Whether the attempt was already seen further on than this patch knows of."""
    if patch.attempt != before["attempt"]:
        return False
    if before["status"] == "waiting":
        return patch.fresh and status in _OPENING
    return before["status"] not in _NOT_STARTED and (patch.fresh or status == "waiting")


def _settle(row: Row, at: float) -> None:
    """What a status says about the other columns."""
    final = row["status"] in FINAL_STATUSES
    if row["status"] == "in_progress":
        row["started_at"] = row["started_at"] or _iso(at)
    if final:
        row["finished_at"] = _iso(at)
    if row["status"] != "waiting":
        row["wait_reason"] = row["queue_position"] = None
    if row["status"] == "completed":
        row["progress"], row["error_code"], row["error_message"] = 100, None, None


def _blank(patch: Patch) -> Row:
    row: Row = dict.fromkeys(_WRITABLE | {"finished_at"})
    counters = dict.fromkeys(("progress", "seq", "log_seq", "parts_total", "parts_progress"), 0)
    return {
        **row,
        **counters,
        "id": patch.run_id,
        "status": "queued",
        "attempt": 0,
        "version": -1,
        "parts": 1,
    }


def _new_lines(before: Row | None, row: Row, patch: Patch) -> list[Row]:
    attempt, version = (before["attempt"], before["version"]) if before else (patch.attempt, -1)
    lines: list[Row] = []
    for line in patch.logs:
        if patch.attempt > attempt or line.version > version:
            row["log_seq"] += 1
            lines.append(
                {
                    "line": row["log_seq"],
                    "level": line.level,
                    "message": line.message,
                    "data": line.data,
                    "at": _iso(line.at),
                }
            )
    return lines


def _share(row: Row) -> int:
    return 100 if row["status"] in FINAL_STATUSES else int(row["progress"])


def _quotient(dividend: int, divisor: int) -> int:
    """Division as Postgres does it, toward zero."""
    return int(dividend / divisor)


def _bump(row: Row) -> None:
    row["seq"] += 1
    row["updated_at"] = datetime.now(UTC).isoformat()


def _announcement(row: Row) -> Announcement:
    snapshot: Snapshot = {name: deepcopy(row[name]) for name in _SNAPSHOT}
    snapshot.update(run_id=row["id"], at=row["updated_at"])
    return Announcement(row["id"], row["channel"], snapshot)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
