"""What a REST client may ask to be broadcast, and the errors of what it may not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .frames import dump

BLANK, INVALID, TOO_LARGE = "can't be blank", "is invalid", "Payload size exceeds tenant limit"

Errors = dict[str, Any]


class BadBatch(Exception):
    """A batch is refused whole; `errors` lists what is wrong, by position, with `{}` for good messages."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(str(errors))
        self.errors = errors


@dataclass(frozen=True)
class Outgoing:
    """One message of a batch."""

    topic: str
    event: str
    payload: dict[str, Any]
    private: bool
    id: str | None = None

    def as_broadcast(self) -> dict[str, Any]:
        """The payload that receivers get."""
        broadcast: dict[str, Any] = {"payload": self.payload, "event": self.event, "type": "broadcast"}
        if self.id is not None:
            broadcast["meta"] = {"id": self.id}
        return broadcast


def parse_batch(body: Any, body_size: int, payload_limit: int) -> list[Outgoing]:
    """The messages of a request body; raises BadBatch.

    >>> parse_batch({"messages": [{"topic": "room", "event": "e", "payload": {}}]}, 60, 3_000_500)
    [Outgoing(topic='room', event='e', payload={}, private=False, id=None)]
    """
    entries = body.get("messages") if isinstance(body, dict) else None
    if entries is None or entries == []:
        raise BadBatch({"messages": [BLANK]})
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadBatch({"messages": [INVALID]})
    may_be_large = body_size > payload_limit
    problems = [_problems(entry, payload_limit if may_be_large else None) for entry in entries]
    if any(problems):
        raise BadBatch({"messages": problems})
    return [_outgoing(entry) for entry in entries]


def _problems(entry: dict[str, Any], payload_limit: int | None) -> Errors:
    problems = {name: [problem] for name in ("topic", "event") if (problem := _text_problem(entry.get(name)))}
    payload = entry.get("payload")
    if payload is None:
        problems["payload"] = [BLANK]
    elif not isinstance(payload, dict):
        problems["payload"] = [INVALID]
    elif payload_limit is not None and len(dump(payload)) > payload_limit:
        problems["payload"] = [TOO_LARGE]
    if entry.get("private") is not None and _boolean(entry["private"]) is None:
        problems["private"] = [INVALID]
    if entry.get("id") is not None and not isinstance(entry["id"], str):
        problems["id"] = [INVALID]
    return problems


def _text_problem(value: Any) -> str | None:
    if value is None:
        return BLANK
    if not isinstance(value, str):
        return INVALID
    return None if value.strip() else BLANK


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return (
        {"true": True, "1": True, "false": False, "0": False}.get(value) if isinstance(value, str) else None
    )


def _outgoing(entry: dict[str, Any]) -> Outgoing:
    private = bool(_boolean(entry.get("private")))
    return Outgoing(entry["topic"], entry["event"], entry["payload"], private, entry.get("id"))
