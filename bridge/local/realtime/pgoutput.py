"""Postgres' logical decoding output (plugin pgoutput, protocol 1), decoded into row changes. Pure.

Format: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Kind = Literal["INSERT", "UPDATE", "DELETE"]
#: Column values as Postgres prints them. A large value that an update left alone is absent.
Values = dict[str, str | None]

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the stream describes it."""

    oid: int
    schema: str
    table: str
    columns: tuple[str, ...]
    identity: frozenset[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One row that was inserted, updated or deleted by a committed transaction.

    `old` holds the replica identity's columns where the stream has them: all with `replica identity full`.
    """

    kind: Kind
    relation: Relation
    new: Values
    old: Values
    committed_at: datetime
    lsn: int


class Decoder:
    """Remembers the relations of one replication slot, which the stream describes once."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._committed_at = _POSTGRES_EPOCH
        self._lsn = 0

    def decode(self, messages: Iterable[bytes]) -> Iterator[Change]:
        """The row changes in a run of messages; everything else only changes what the decoder knows."""
        for data in messages:
            kind = data[:1]
            if kind == b"B":
                self._begin(data)
            elif kind == b"R":
                relation = _relation(_Reader(data))
                self._relations[relation.oid] = relation
            elif kind in _DECODERS:
                yield self._change(data, _DECODERS[kind])

    def _begin(self, data: bytes) -> None:
        lsn, microseconds = struct.unpack_from("!Qq", data, 1)
        self._lsn = lsn
        self._committed_at = _POSTGRES_EPOCH + timedelta(microseconds=microseconds)

    def _change(self, data: bytes, kind: Kind) -> Change:
        reader = _Reader(data)
        relation = self._relations[reader.int32()]
        new: Values = {}
        old: Values = {}
        while not reader.at_end:
            part = reader.take(1)
            values = reader.row(relation)
            if part == b"N":
                new = values
            elif part == b"O":
                old = values
            else:
                old = {name: value for name, value in values.items() if name in relation.identity}
        return Change(kind, relation, new, old, self._committed_at, self._lsn)


_DECODERS: dict[bytes, Kind] = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 1

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def int16(self) -> int:
        return int.from_bytes(self.take(2))

    def int32(self) -> int:
        return int.from_bytes(self.take(4))

    def text(self) -> str:
        end = self._data.index(0, self._at)
        text = self._data[self._at : end].decode()
        self._at = end + 1
        return text

    def row(self, relation: Relation) -> Values:
        values: Values = {}
        for name, _ in zip(relation.columns, range(self.int16()), strict=False):
            status = self.take(1)
            if status == b"n":
                values[name] = None
            elif status == b"t":
                values[name] = self.take(self.int32()).decode()
        return values


def _relation(reader: _Reader) -> Relation:
    oid, schema, table = reader.int32(), reader.text(), reader.text()
    reader.take(1)
    columns, identity = [], set()
    for _ in range(reader.int16()):
        is_identity = reader.take(1) != b"\0"
        name = reader.text()
        reader.take(8)
        columns.append(name)
        if is_identity:
            identity.add(name)
    return Relation(oid, schema, table, tuple(columns), frozenset(identity))
