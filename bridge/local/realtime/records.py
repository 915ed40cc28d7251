"""The `data` of a postgres_changes event: a row change as one role with one selection of columns gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .catalog import Column, Table
from .pgoutput import Change, Values

LARGEST_RECORD = 1024 * 1024
#: Columns up to this size stay in a record that is too large as a whole.
SMALL_VALUE = 64

NO_KEY, NO_PRIVILEGE, TOO_LARGE = (
    "Error 400: Bad Request, no primary key",
    "Error 401: Unauthorized",
    "Error 413: Payload Too Large",
)

ToJson = Callable[[str | None, Column], Any]


def refusal(change: Change, table: Table, role: str) -> str | None:
    """Why a role cannot get a change at all; deletes always go out."""
    if change.kind == "DELETE":
        return None
    if not table.key:
        return NO_KEY
    return None if table.may_select_key(role) else NO_PRIVILEGE


def refused_data(change: Change, error: str) -> dict[str, Any]:
    """What a subscriber gets instead of a change it may not see."""
    return {**_head(change), "columns": [], "record": {}, "errors": [error]}


def build_data(
    change: Change, table: Table, role: str, select: tuple[str, ...] | None, to_json: ToJson
) -> dict[str, Any]:
    """What a subscriber gets of a change. The primary key is always part of it."""
    columns = [
        column
        for column in table.columns
        if column.name in table.selectable[role]
        and (select is None or column.name in select or column.is_key)
    ]
    keys = [column for column in columns if column.is_key]
    is_too_large = _size(change.new) + _size(change.old) > LARGEST_RECORD
    data: dict[str, Any] = {
        **_head(change),
        "columns": [{"name": column.name, "type": column.type_name} for column in columns],
        "errors": [TOO_LARGE] if is_too_large else None,
    }

    def add(name: str, values: Values, of: list[Column]) -> None:
        kept = [c for c in of if c.name in values and not (is_too_large and _is_big(values[c.name]))]
        data[name] = {column.name: to_json(values[column.name], column) for column in kept}

    if change.kind != "DELETE":
        add("record", current_row(change), columns)
    if change.kind == "UPDATE":
        add("old_record", change.old or change.new, columns if _is_whole(change) else keys)
    if change.kind == "DELETE":
        # Nobody can ask the policies about a row that is gone.
        add("old_record", change.old, keys if table.has_rls else columns)
    return data


def current_row(change: Change) -> Values:
    """The row after the change, as far as the stream tells it."""
    return {**change.old, **change.new} if change.kind == "UPDATE" else change.new or change.old


def key_of(change: Change, table: Table) -> tuple[str | None, ...]:
    """The primary key of the changed row."""
    row = current_row(change)
    return tuple(row.get(column.name) for column in table.key)


def _is_whole(change: Change) -> bool:
    """Whether the stream has the whole old row (replica identity full)."""
    return bool(change.old) and change.relation.identity == frozenset(change.relation.columns)


def _head(change: Change) -> dict[str, Any]:
    moment = change.committed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    relation = change.relation
    return {
        "schema": relation.schema,
        "table": relation.table,
        "type": change.kind,
        "commit_timestamp": moment,
    }


def _is_big(value: str | None) -> bool:
    return value is not None and len(value) > SMALL_VALUE


def _size(values: Values) -> int:
    return sum(len(value) for value in values.values() if value is not None)
