"""Who is on a channel: the state a client gets when it joins, and the differences it gets afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

Metas = dict[str, dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Diff:
    """Presences that came and went, by key."""

    joins: Metas = field(default_factory=dict)
    leaves: Metas = field(default_factory=dict)

    def as_payload(self) -> dict[str, Metas]:
        """The payload of a presence_diff."""
        return {"joins": self.joins, "leaves": self.leaves}


class Roster:
    """The presences of one topic: each member tracks at most one, several members may share a key."""

    def __init__(self) -> None:
        self._metas: dict[Hashable, tuple[str, dict[str, Any]]] = {}

    def __bool__(self) -> bool:
        return bool(self._metas)

    def state(self) -> Metas:
        """Everybody, as the payload of a presence_state."""
        state: Metas = {}
        for key, meta in self._metas.values():
            state.setdefault(key, {"metas": []})["metas"].append(meta)
        return state

    def track(self, member: Hashable, key: str, payload: dict[str, Any]) -> Diff:
        """Set what a member shows of itself; a second call replaces the first."""
        reference = secrets.token_urlsafe(9)
        previous = self._metas.get(member)
        meta = {**payload, "phx_ref": reference}
        if previous is None:
            self._metas[member] = key, meta
            return Diff(joins={key: {"metas": [meta]}})
        meta["phx_ref_prev"] = previous[1]["phx_ref"]
        self._metas[member] = key, meta
        return Diff(joins={key: {"metas": [meta]}}, leaves={key: {"metas": [previous[1]]}})

    def untrack(self, member: Hashable) -> Diff | None:
        """Forget a member; none when it tracked nothing."""
        gone = self._metas.pop(member, None)
        return Diff(leaves={gone[0]: {"metas": [gone[1]]}}) if gone else None
