"""Column values as JSON, the way Postgres' own to_jsonb writes them. Pure."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_INTEGERS = frozenset({"int2", "int4", "int8"})
_DECIMALS = frozenset({"float4", "float8", "numeric"})
_MOMENTS = frozenset({"timestamp", "timestamptz"})


def needs_postgres(category: str, kind: str) -> bool:
    """Whether only Postgres can tell the JSON: arrays, composite types and domains.

    `category` and `kind` are pg_type's typcategory and typtype.
    """
    return category in ("A", "C") or kind == "d"


def to_json(text: str | None, type_name: str) -> Any:
    """The JSON value of a column's text.

    >>> to_json("2026-11-20 17:15:11.9+00", "timestamptz")
    '2026-11-20T17:15:11.9+00:00'
    """
    if text is None:
        return None
    if type_name in _INTEGERS:
        return int(text)
    if type_name in _DECIMALS:
        return _decimal(text)
    if type_name == "bool":
        return text == "t"
    if type_name in ("json", "jsonb"):
        return json.loads(text)
    return _moment(text) if type_name in _MOMENTS else text


def _decimal(text: str) -> int | float | str:
    if "." not in text and text.lstrip("-").isdigit():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text


def _moment(text: str) -> str:
    text = text.replace(" ", "T", 1)
    return re.sub(r"([+-]\d\d)$", r"\1:00", text) if "T" in text else text
