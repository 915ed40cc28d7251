"""What a client wants to hear of the database: one entry of a join's `postgres_changes`. Pure."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from .filters import BadFilter, Filter, parse_filters

_EVENTS = ("INSERT", "UPDATE", "DELETE")


class BadBinding(ValueError):
    """A subscription is refused with this text, in a system message on a channel that stays joined."""


@dataclass(frozen=True)
class Binding:
    """A subscription's parameters; `*` stands for every event, schema or table."""

    id: int
    event: str
    schema: str
    table: str
    filters: tuple[Filter, ...] = ()
    select: tuple[str, ...] | None = None

    def covers(self, schema: str, table: str) -> bool:
        """Whether a table is the wanted one, or one of them."""
        return self.schema in ("*", schema) and self.table in ("*", table)

    def describe(self) -> str:
        """The parameters as the server's error messages list them."""
        filters = ", ".join(
            f'{{"{f.column}", "{f.operator}", "{",".join(f.values)}", {str(f.negate).lower()}}}'
            for f in self.filters
        )
        select = "nil" if self.select is None else json.dumps(list(self.select))
        table = f"schema: {self.schema}, table: {self.table}"
        return f"event: {self.event}, {table}, filters: [{filters}], select: {select}"


def binding_id(params: dict[str, Any]) -> int:
    """A number that the same parameters always get."""
    return zlib.crc32(json.dumps(params, sort_keys=True).encode()) & 0x7FFFFFF


def parse_binding(params: dict[str, Any]) -> Binding:
    """Read a subscription's parameters; raises BadBinding.

    >>> parse_binding({"event": "INSERT", "table": "todos"}).schema
    'public'
    """
    schema, table, filter_text = params.get("schema"), params.get("table"), params.get("filter")
    given = {name for name in ("schema", "table", "filter") if name in params}
    is_complete = given in ({"schema", "table", "filter"}, {"schema", "table"}, {"schema"}, {"table"})
    if not is_complete or not all(isinstance(params[name], str) for name in given):
        raise BadBinding(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            + _inspect(params)
        )
    schema, table = schema or "public", table or "*"
    select = _select(params.get("select"), schema, table)
    try:
        filters = tuple(parse_filters(filter_text or ""))
    except BadFilter as error:
        raise BadBinding(f"Error parsing `filter` params: {error}") from None
    return Binding(binding_id(params), _event(params.get("event")), schema, table, filters, select)


def _event(value: Any) -> str:
    event = value.upper() if isinstance(value, str) else "*"
    return event if event in _EVENTS else "*"


def _select(value: Any, schema: str, table: str) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise BadBinding(
            "Error parsing `select` params: expected a list of column name strings, "
            'e.g. select: ["col1", "col2"]'
        )
    columns = tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()
    if columns and "*" in (schema, table):
        raise BadBinding(
            "Column selection is not supported for wildcard subscriptions. "
            "Provide an explicit schema and table name."
        )
    return columns or None


def _inspect(params: dict[str, Any]) -> str:
    entries = (f"{json.dumps(name)} => {json.dumps(value)}" for name, value in sorted(params.items()))
    return "%{" + ", ".join(entries) + "}"
