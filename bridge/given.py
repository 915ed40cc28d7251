"""What a task hands to the progress API, checked at the call."""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.errors import ArgumentError, PayloadTooLarge
from bridge.events import DEEPEST_VALUE, is_deeper
from bridge.text import public_json

LARGEST_COUNT: Final = 2**53
"""Counts above this would change their value in a browser."""

DATA_LIMIT: Final = 16_000
"""Bytes of JSON that one log line may carry as data."""

CHECKPOINT_LIMIT: Final = 64_000
"""Bytes of JSON that an attempt may leave to the next."""


def count(name: str, value: float | None) -> int | None:
    """A count as the row has it; a total of 0 is one that is not known.

    Raises:
        ArgumentError: it is negative, not finite or not a number.
    """
    if value is None or (name == "total" and value == 0):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT:
        return int(value)
    raise ArgumentError(name, value, "give a number from 0 to 2**53, or None where it is not known")


def line_data(data: dict[str, Any]) -> dict[str, Any] | None:
    """The data of a log line, cleaned for its readers.

    Raises:
        ArgumentError: it is no JSON. PayloadTooLarge: it is above 16,000 bytes.
    """
    if not data:
        return None
    raw = _json("data", data, DATA_LIMIT, "log an id and keep the data elsewhere")
    cleaned: dict[str, Any] = public_json(json.loads(raw))
    return cleaned


def checkpoint_state(state: Any) -> bytes:
    """A checkpoint as it is kept.

    Raises:
        ArgumentError: it is no JSON. PayloadTooLarge: it is above 64,000 bytes.
    """
    return _json("checkpoint", state, CHECKPOINT_LIMIT, "keep a cursor or an id, not the data")


def _json(field: str, value: Any, limit: int, remedy: str) -> bytes:
    try:
        raw = json.dumps(value, allow_nan=False, separators=(",", ":"))
        is_nested = raw.count("[") + raw.count("{") > DEEPEST_VALUE
        is_too_deep = is_nested and is_deeper(json.loads(raw), DEEPEST_VALUE)
    except (TypeError, ValueError) as error:
        raise ArgumentError(field, value, f"is no JSON ({error}); {remedy}") from error
    except RecursionError:
        is_too_deep = True
    if is_too_deep:  # what it is cannot even be shown
        raise ArgumentError(field, type(value), f"is nested deeper than {DEEPEST_VALUE} levels; {remedy}")
    if len(raw) > limit:
        raise PayloadTooLarge(field, len(raw), limit, remedy)
    return raw.encode()
