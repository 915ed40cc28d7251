"""The rows of runs in Postgres: what the bridge writes and reads back, through Supabase's REST API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from bridge.errors import (
    BatchTooLarge,
    SchemaMissing,
)
from bridge.events import FINAL_STATUSES, Patch
from bridge.rest import Rest, remedy
from bridge.settings import DEPLOYMENT, SupabaseSettings

SCHEMA_VERSION: Final = 3
_BODY_LIMIT: Final = 4_000_000

Snapshot = dict[str, Any]
"""The whole public state of a run, numbered by its `seq`: the payload of a broadcast."""


@dataclass(slots=True)
class Announcement:
    """A run's current snapshot and the channel it reports on."""

    run_id: str
    channel: str | None
    snapshot: Snapshot


@dataclass(slots=True)
class Mirrored:
    """What one patch did: `outcome` is applied, duplicate, stale, final or unknown.

    Stale is what tells of an older attempt, or of a place in line of a run that is in none.
    `current` is None unless applied or duplicate; `logs` are the newly written lines.
    """

    run_id: str
    outcome: str
    current: Announcement | None = None
    state_changed: bool = False
    progress_changed: bool = False
    logs: list[dict[str, Any]] = field(default_factory=list)
    parents: list[Announcement] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether the run's row is final."""
        final = self.current is not None and self.current.snapshot["status"] in FINAL_STATUSES
        return final or self.outcome == "final"


class Rows(Protocol):
    """The mirror of runs: one writer for all of it."""

    async def mirror(self, batch: Sequence[Patch]) -> list[Mirrored]:
        """Write the patches in order, all or none, and say what each one did; a repeat is harmless.

        Raises:
            BatchRefused, BatchTooLarge, TooMuchAtOnce, KeyRefused, SchemaMissing, SupabaseUnavailable.
        """

    async def snapshots(self, run_ids: Sequence[str]) -> list[Announcement]:
        """The current snapshots of these runs; unknown ids are left out."""

    async def check(self) -> None:
        """Raise unless the rows can be written by this code with this key."""


class SupabaseRows:
    """Rows behind `<url>/rest/v1`, written by the SQL function `mirror_runs`."""

    def __init__(
        self,
        settings: SupabaseSettings,
        timeout: timedelta = timedelta(seconds=10),
        deployment: str = DEPLOYMENT,
    ) -> None:
        self._rest, self._deployment = Rest(settings, timeout), deployment

    async def mirror(self, batch: Sequence[Patch]) -> list[Mirrored]:
        body = b'{"batch":[' + b",".join(_element(patch, self._deployment) for patch in batch) + b"]}"
        if len(body) > _BODY_LIMIT and len(batch) > 1:
            raise BatchTooLarge(f"the batch is {len(body)} bytes")
        answer = await self._rest.call("mirror_runs", body)
        with self._rest.as_ours():
            results = [_mirrored(result) for result in answer]
            # What is not told of was not written, whatever answered in the database's place.
            if [result.run_id for result in results] != [patch.run_id for patch in batch]:
                raise ValueError("other runs than were written")
        return results

    async def snapshots(self, run_ids: Sequence[str]) -> list[Announcement]:
        body = json.dumps({"ids": list(run_ids)}).encode()
        answer = await self._rest.ask("run_snapshots", body)
        with self._rest.as_ours():
            return _announcements(answer)

    async def check(self) -> None:
        version = await self._rest.ask("taskcast_schema_version", b"{}")
        if type(version) is not int:
            raise self._rest.not_supabase()
        if version < SCHEMA_VERSION:
            raise SchemaMissing(
                f"the database has version {version} of the bridge's tables, this code needs "
                f"{SCHEMA_VERSION}; {remedy()}"
            )

    async def close(self) -> None:
        await self._rest.close()


def _element(patch: Patch, deployment: str = DEPLOYMENT) -> bytes:
    element: dict[str, Any] = {
        "id": patch.run_id,
        "attempt": patch.attempt,
        "version": patch.version,
        "at": patch.at,
        "fresh": patch.fresh,
        "existing": patch.existing,
        "parts": patch.parts,
        # Whose the run is, for the row that it makes; what has no status makes none.
        "set": {**patch.fields, "deployment": deployment} if patch.status else patch.fields,
        "logs": [
            {
                "v": line.version,
                "level": line.level,
                "message": line.message,
                "data": line.data,
                "at": line.at,
            }
            for line in patch.logs
        ],
    }
    if patch.expected is not None:
        element["expected"] = patch.expected
    try:
        text = json.dumps(element, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(storable(element), ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in text:
        text = json.dumps(storable(element), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def storable(value: Any) -> Any:
    """The value as jsonb can hold it: no NUL characters, no infinite numbers.

    >>> storable({"a\\x00": float("nan")})
    {'a\ufffd': None}
    """
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [storable(inner) for inner in value]
    return value


def _announcement(found: dict[str, Any]) -> Announcement:
    run_id, channel, snapshot = found["id"], found["channel"], found["snapshot"]
    if not isinstance(run_id, str) or not isinstance(channel, str | None):
        raise TypeError("not a run of a channel")
    if type(snapshot["seq"]) is not int or not isinstance(snapshot["status"], str):
        raise TypeError("not a snapshot")
    if not snapshot.keys() >= {"run_id", "task"}:
        raise LookupError("not a snapshot")
    return Announcement(run_id, channel, snapshot)


def _announcements(found: Iterable[dict[str, Any]]) -> list[Announcement]:
    return [_announcement(each) for each in found]


def _lines(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = [dict(each) for each in found]
    if not all(type(line["line"]) is int for line in lines):
        raise TypeError("not a log line")
    return lines


def _mirrored(result: dict[str, Any]) -> Mirrored:
    return Mirrored(
        run_id=result["id"],
        outcome=result["outcome"],
        current=_announcement(result) if "snapshot" in result else None,
        state_changed=result.get("state_changed", False),
        progress_changed=result.get("progress_changed", False),
        logs=_lines(result.get("logs", [])),
        parents=_announcements(result.get("parents", [])),
    )
