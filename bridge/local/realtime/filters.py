"""Filters of postgres_changes subscriptions: `n=gt.1,title=in.(a,b)`, parsed and applied to a row. Pure.

Values are compared as Postgres prints them: numbers by value, everything else as text by code point, which
differs from the real server for texts in a database with a language's collation.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
OPERATORS = (*ORDERED, "in", "like", "ilike", "is", "match", "imatch", "isdistinct")
NUMERIC_TYPES = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
IS_VALUES = ("null", "true", "false", "unknown")


class BadFilter(ValueError):
    """A filter cannot be parsed; the text is the server's."""


@dataclass(frozen=True)
class Filter:
    """One condition. `values` has one entry, or those of an `in` list."""

    column: str
    operator: str
    values: tuple[str, ...]
    negate: bool = False


def parse_filters(text: str) -> list[Filter]:
    """All conditions of a filter text, which must all hold.

    >>> parse_filters("id=not.in.(3,4)")
    [Filter(column='id', operator='in', values=('3', '4'), negate=True)]
    """
    if not text.strip():
        return []
    return [_parse(segment.strip()) for segment in split_top_level(text.strip())]


def _parse(segment: str) -> Filter:
    if not segment:
        raise BadFilter("filter must not contain empty segments (check for extra commas)")
    column, equals, condition = segment.partition("=")
    if not equals:
        raise BadFilter(json.dumps([segment]))
    negate = condition.startswith("not.")
    name, dot, value = condition.removeprefix("not.").partition(".")
    if not dot:
        raise BadFilter(json.dumps([name]))
    if name not in OPERATORS:
        raise BadFilter(json.dumps([name, value]))
    return Filter(column, name, _values(name, value), negate)


def _values(name: str, value: str) -> tuple[str, ...]:
    if name != "in":
        return (_unquote(value),)
    if not (value.startswith("(") and value.endswith(")")):
        raise BadFilter("`in` filter value must be wrapped by parentheses")
    inner = value[1:-1]
    return tuple(_unquote(item.strip()) for item in split_top_level(inner)) if inner.strip() else ()


def split_top_level(text: str) -> list[str]:
    """Split at commas outside of parentheses and double quotes; a backslash protects inside quotes."""
    parts, start, depth, quoted, position = [], 0, 0, False, 0
    while position < len(text):
        character = text[position]
        if quoted and character == "\\":
            position += 1
        elif character == '"' and (quoted or position == start or text[position - 1] in ".(,"):
            quoted = not quoted
        elif not quoted and character in "()":
            depth = max(0, depth + (1 if character == "(" else -1))
        elif not quoted and character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


def _unquote(value: str) -> str:
    if len(value) >= 2 and re.fullmatch(r'"(?:[^"\\]|\\.)*"', value, re.DOTALL):
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value


def holds(condition: Filter, value: str | None, type_name: str) -> bool:
    """Whether a column's value meets a condition; a null meets none but `is` and `isdistinct`."""
    if condition.operator == "is":
        return _is(condition.values[0], value) is not condition.negate
    if condition.operator == "isdistinct":
        return (value is None or not _equals(value, condition.values[0], type_name)) is not condition.negate
    if value is None:
        return False
    return _compare(condition, value, type_name) is not condition.negate


def _is(keyword: str, value: str | None) -> bool:
    return value == {"null": None, "unknown": None, "true": "t", "false": "f"}[keyword]


def _compare(condition: Filter, value: str, type_name: str) -> bool:
    name, wanted = condition.operator, condition.values
    if name == "in":
        return any(_equals(value, item, type_name) for item in wanted)
    if name in ORDERED:
        return ORDERED[name](_comparable(value, type_name), _comparable(wanted[0], type_name))
    ignore_case = re.IGNORECASE if name in ("ilike", "imatch") else 0
    if name in ("like", "ilike"):
        return re.fullmatch(_like_pattern(wanted[0]), value, ignore_case | re.DOTALL) is not None
    return re.search(wanted[0], value, ignore_case) is not None


def _equals(left: str, right: str, type_name: str) -> bool:
    return bool(_comparable(left, type_name) == _comparable(right, type_name))


def _comparable(text: str, type_name: str) -> Any:
    if type_name not in NUMERIC_TYPES:
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return Decimal("Infinity") if number.is_nan() else number


def _like_pattern(pattern: str) -> str:
    wildcards = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join(
        re.escape(part[-1]) if part[0] == "\\" else wildcards.get(part, re.escape(part)) for part in parts
    )
