"""Which broadcasts follow from what was written, as pure functions.

Every `state` and `progress` message is a whole snapshot; a `log` message is one numbered line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bridge.events import FINAL_STATUSES
from bridge.rows import Announcement, Mirrored, Snapshot

PAYLOAD_LIMIT: Final = 256_000
"""Bytes of JSON; the smallest plan takes 256 kB a message."""

# What is left out first when a payload is too large; the row keeps it.
_LARGE_FIELDS: Final = ("result", "data", "error_message", "message")


@dataclass(frozen=True, slots=True)
class Message:
    """One broadcast to come; `payload` is JSON, `number` orders the messages of a run.

    `number` is the snapshot's `seq`, or the line's number for a `log`.
    """

    run_id: str
    topic: str
    event: str
    number: int
    payload: bytes
    final: bool = False


def messages_for(results: Iterable[Mirrored]) -> list[Message]:
    """The broadcasts of one pass, in order; a redelivered patch repeats the current snapshot once."""
    messages: list[Message] = []
    repeated: dict[str, Announcement] = {}
    newest: dict[str, int] = {}
    for result in results:
        for seen in (result.current, *result.parents):
            if seen is not None and result.outcome == "applied":
                newest[seen.run_id] = seen.snapshot["seq"]
        if result.outcome == "applied":
            messages.extend(_of_applied(result))
        elif result.current is not None:
            repeated.update({each.run_id: each for each in (result.current, *result.parents)})
    for run_id, current in repeated.items():
        if current.snapshot["seq"] > newest.get(run_id, -1):
            messages.extend(current_messages(current))
    return messages


def current_messages(current: Announcement) -> list[Message]:
    """What brings a listener up to date who may have missed any message of the run."""
    payload = encoded(current.snapshot)
    return [
        message for event in ("state", "progress") for message in _snapshot_message(current, event, payload)
    ]


def encoded(payload: dict[str, Any]) -> bytes:
    """The payload as JSON within the limit; a field too large for it becomes `<field>_omitted: true`."""
    raw = _json(payload)
    for name in _LARGE_FIELDS:
        if len(raw) <= PAYLOAD_LIMIT:
            break
        if payload.get(name) is not None:
            payload = {**payload, name: None, f"{name}_omitted": True}
            raw = _json(payload)
    return raw


def _of_applied(result: Mirrored) -> Iterator[Message]:
    current = result.current
    if (
        current is not None
        and current.channel
        and (result.logs or result.state_changed or result.progress_changed)
    ):
        for line in result.logs:
            yield _log_message(current.channel, current, line)
        payload = encoded(current.snapshot)
        if result.state_changed:
            yield from _snapshot_message(current, "state", payload)
        if result.progress_changed:
            yield from _snapshot_message(current, "progress", payload)
    for parent in result.parents:
        yield from _snapshot_message(parent, "progress", encoded(parent.snapshot))


def _snapshot_message(current: Announcement, event: str, payload: bytes) -> Iterator[Message]:
    if current.channel:
        snapshot = current.snapshot
        final = snapshot["status"] in FINAL_STATUSES
        yield Message(current.run_id, current.channel, event, snapshot["seq"], payload, final)


def _log_message(topic: str, current: Announcement, line: dict[str, Any]) -> Message:
    snapshot: Snapshot = current.snapshot
    shared = {name: snapshot[name] for name in ("run_id", "task", "status", "seq")}
    return Message(current.run_id, topic, "log", line["line"], encoded({**shared, **line}))


def _json(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
