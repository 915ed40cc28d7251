"""What a patch makes of a row: the rules of the SQL function `mirror_runs`, as pure functions."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final

from bridge.events import FINAL_STATUSES, Patch
from bridge.rows import Announcement, Snapshot

Row = dict[str, Any]

_IDENTITY: Final = (
    "task", "queue", "user_id", "input_file", "channel", "parent_id", "root_id", "metadata", "tags",
    "max_attempts", "created_at", "started_at",
)  # fmt: skip
WRITABLE: Final = frozenset(_IDENTITY) | {
    "status", "state", "progress", "current", "total", "step", "message", "wait_reason", "queue_position",
    "result", "result_url", "error_code", "error_message", "cancel_requested_at",
}  # fmt: skip
STATE: Final = (
    "status", "state", "task", "attempt", "max_attempts", "result", "error_code", "error_message",
    "parent_id", "started_at", "finished_at",
)  # fmt: skip
PROGRESS: Final = ("progress", "current", "total", "message", "step", "result_url")
PLACE: Final = ("wait_reason", "queue_position")
_SNAPSHOT: Final = (
    "task", "status", "state", "progress", "current", "total", "step", "message", "attempt", "max_attempts",
    "wait_reason", "queue_position", "result", "result_url", "error_code", "error_message", "parent_id",
    "seq", "created_at", "started_at", "finished_at",
)  # fmt: skip
_OPENING: Final = ("scheduled", "queued", "retrying")
_NOT_STARTED: Final = (*_OPENING, "waiting")


def refusal(before: Row | None, patch: Patch) -> str | None:
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
    is_place = bool(patch.fields) and not patch.logs and patch.fields.keys() <= set(PLACE)
    return is_place and (before["status"] != "waiting" or patch.attempt > before["attempt"])


def merged(before: Row | None, patch: Patch) -> Row:
    base = before or _blank(patch)
    row = dict(base)
    row.update({name: value for name, value in patch.fields.items() if name in WRITABLE})
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
    row: Row = dict.fromkeys(WRITABLE | {"finished_at"})
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


def new_lines(before: Row | None, row: Row, patch: Patch) -> list[Row]:
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


def share(row: Row) -> int:
    return 100 if row["status"] in FINAL_STATUSES else int(row["progress"])


def quotient(dividend: int, divisor: int) -> int:
    """Division as Postgres does it, toward zero."""
    return int(dividend / divisor)


def bump(row: Row) -> None:
    row["seq"] += 1
    row["updated_at"] = datetime.now(UTC).isoformat()


def announcement(row: Row) -> Announcement:
    snapshot: Snapshot = {name: deepcopy(row[name]) for name in _SNAPSHOT}
    snapshot.update(run_id=row["id"], at=row["updated_at"])
    return Announcement(row["id"], row["channel"], snapshot)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
