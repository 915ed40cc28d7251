"""The kinds of runs in the load, each with the end that it must come to, whatever happens meanwhile."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a run does and what has to come of it.

    Attributes:
        ends: how its bodies leave by task and count of retries; each once, none besides.
        takes: seconds of work from which its number of beats is drawn.
        options: for `apply_async`. share: how often it is chosen.
    """

    task: str
    status: str
    ends: Mapping[tuple[str, int], str]
    code: str | None = None
    beats: tuple[int, int] = (2, 10)
    returns: int = 0  # this many times the number of beats
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 0
    revoked: bool = False
    share: int = 1


def _done(task: str, **more: Any) -> Kind:
    return Kind(task, "completed", {(task, 0): "end"}, returns=1, **more)


KINDS: dict[str, Kind] = {
    "plain": _done("plain", share=5),
    "later": _done("plain", options={"countdown": 1.5}),
    "unexpired": _done("plain", options={"expires": 600}),
    "limited": _done("limited", share=4),
    "checkpointed": _done("long", beats=(30, 100), share=2),
    "refused": Kind("refused", "failed", {("refused", 0): "left:PublicError"}, code="empty_account"),
    "broken": Kind("broken", "failed", {("broken", 0): "left:ValueError"}, code="error"),
    "stubborn": Kind(
        "stubborn",
        "completed",
        {("stubborn", 0): "left:Retry", ("stubborn", 1): "left:Retry", ("stubborn", 2): "end"},
        returns=1,
        beats=(1, 4),
        share=2,
    ),
    "parallel": Kind(
        "parallel",
        "completed",
        {("parallel", 0): "left:Ignore", ("gather", 0): "end"},
        returns=3,
        parts=3,
        share=2,
    ),
    "expired": Kind("never", "expired", {}, code="expired", options={"countdown": 1.5, "expires": 0.7}),
    "revoked": Kind("held", "cancelled", {}, code="cancelled", revoked=True),
}


@dataclass(frozen=True)
class Sent:
    """One run of the load; `doubtful`: the dispatch failed, so it may never have come to the broker."""

    run: str
    kind: str
    user: str
    beats: int
    at: float
    doubtful: bool = False

    @property
    def expected(self) -> Kind:
        return KINDS[self.kind]

    @property
    def result(self) -> int | None:
        return self.expected.returns * self.beats or None


def choose(chance: random.Random) -> tuple[str, int]:
    """A kind by its share, and a number of beats."""
    name = chance.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
    return name, chance.randint(*KINDS[name].beats)
