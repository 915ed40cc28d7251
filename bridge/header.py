"""The message header by which a run's identity travels, read as if an enemy had written it.

Whoever can publish to the broker can write it. What has not the right form counts as absent, so that
a forged header can spoil nothing but the row of its own run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from bridge.events import DEEPEST_VALUE, UUID_TEXT, is_deeper
from bridge.options import CHANNEL
from bridge.text import public_json

HEADER: Final = "taskcast"
METADATA_LIMIT: Final = 16_000
"""Bytes of JSON that a run may carry as metadata."""

TAGS_LIMIT: Final = 50
MOST_ATTEMPTS: Final = 1_000_000
_PUBLICATION: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Header:
    """Whose a run is, where it reports, and what came before it."""

    user_id: str | None = None
    channel: str | None = None
    parent: str | None = None
    earlier: int = 0  # attempts that were made under this id before Celery began to count anew
    metadata: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def read(cls, headers: Mapping[str, Any]) -> Header:
        raw = headers.get(HEADER)
        if not isinstance(raw, dict):
            return _EMPTY
        channel, tags = raw.get("channel"), raw.get("tags")
        return cls(
            user_id=_uuid(raw.get("user_id")),
            channel=channel if isinstance(channel, str) and CHANNEL.fullmatch(channel) else None,
            parent=_uuid(raw.get("parent")),
            earlier=counted(raw.get("earlier")),
            metadata=_metadata(raw.get("metadata")),
            tags=_tags(tags) if isinstance(tags, (list, tuple)) else (),
        )


_EMPTY: Final = Header()


def earlier_in(headers: Mapping[str, Any]) -> int:
    """The attempts that were made before Celery began to count anew, of a message's headers."""
    raw = headers.get(HEADER)
    return counted(raw.get("earlier")) if isinstance(raw, dict) else 0


def publication_in(headers: Mapping[str, Any]) -> str:
    """What is the same in each copy of a message, and another when the run is sent anew."""
    raw = headers.get(HEADER)
    publication = raw.get("publication") if isinstance(raw, dict) else None
    is_one = isinstance(publication, str) and _PUBLICATION.fullmatch(publication)
    return str(publication) if is_one else ""


def holder_in(raw: object) -> str | None:
    """The lease under which the worker executes a run, from the header that it was handed."""
    holder = raw.get("holder") if isinstance(raw, dict) else None
    return holder if isinstance(holder, str) and len(holder) <= 1_000 else None


def counted(value: object) -> int:
    """A count of attempts as it was meant; 0 where it is none."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_ATTEMPTS
    return value if is_count else 0  # type: ignore[return-value]


def _uuid(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return value if UUID_TEXT.fullmatch(value) else str(UUID(value))
    except ValueError:
        return None


def _metadata(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not value:
        return None
    try:
        raw = json.dumps(value, allow_nan=False)
        if len(raw) > METADATA_LIMIT or is_deeper(parsed := json.loads(raw), DEEPEST_VALUE):
            return None
        cleaned: dict[str, Any] = public_json(parsed)
        return cleaned
    except (TypeError, ValueError, RecursionError):
        return None


def _tags(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    texts = [public_json(tag) for tag in values[:TAGS_LIMIT] if isinstance(tag, str) and len(tag) <= 100]
    return tuple(text for text in texts if text)
