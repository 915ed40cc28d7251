"""What one execution of a run leaves to the next: a small state, and how far the bar had come.

An execution takes the checkpoint over before it reads or writes it. From then on what earlier ones write,
that may still be alive somewhere, is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

Counts = tuple[int, int | None]
"""(current, total) of a report of progress."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a run; `turn` numbers the executions that took it over."""

    turn: int = 0
    state: bytes | None = None
    told: Counts | None = None


class Keeper(Protocol):
    """Where checkpoints are kept: an outbox."""

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept: ...

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool: ...


class Checkpoint:
    """The checkpoint of a run in the hands of one execution.

    Args:
        nesting: how often the run was replaced under its id; each of those tasks has its own checkpoint.
        is_first: no earlier execution is known of.
    """

    # fmt: off
    __slots__ = (
        "__weakref__", "_floor", "_keeper", "_taken", "attempt", "is_first", "nesting", "run_id", "state",
        "told", "turn",
    )
    # fmt: on

    def __init__(
        self, keeper: Keeper, run_id: str, attempt: int, nesting: int = 0, is_first: bool = True
    ) -> None:
        self.run_id, self.attempt, self.nesting, self.is_first = run_id, attempt, nesting, is_first
        self.turn = 0
        self.state: bytes | None = None
        self.told: Counts | None = None  # what the bar shows when the state is kept
        self._keeper, self._taken = keeper, False
        self._floor: Counts | None = None

    @property
    def value(self) -> Any:
        """The state as the body reads it; None where there is none."""
        return None if self.state is None else json.loads(self.state)

    def take(self) -> Counts | None:
        """Take over what is kept, once; returns how far the bar had come, where there is a state.

        Raises:
            OutboxUnavailable
        """
        if self._taken:
            return None
        kept = self._keeper.take_checkpoint(self)
        self.turn, self._taken = kept.turn, True
        if self.state is None and kept.state not in (None, b"null"):
            self.state, self._floor = kept.state, kept.told
        return self._floor

    def save(self, state: bytes, counts: Counts | None) -> bool:
        """Keep a state and how far the run is; False when a later execution has taken the checkpoint over.

        Raises:
            OutboxUnavailable
        """
        self.take()
        self.state = state
        self.told = self._floor if counts is None or self.falls_back(counts) else counts
        return self._keeper.save_checkpoint(self)

    def falls_back(self, counts: Counts) -> bool:
        """Whether the bar would show less with these counts than an earlier execution had told.

        Once one has come further than that, its bar is its own.
        """
        ahead = order(counts, self._floor) if self._floor is not None else None
        if ahead is not None and ahead > 0:
            self._floor = None
        return ahead is not None and ahead < 0


def order(counts: Counts, other: Counts) -> int | None:
    """Negative where `counts` is less far than the other, 0 where as far; None where nobody can tell.

    >>> order((51, 100), (57, 100)), order((3, 5), (6, 10)), order((1, 5), (3, None))
    (-60, 0, None)
    """
    (current, total), (other_current, other_total) = counts, other
    if total is None and other_total is None:
        return current - other_current
    if total is None or other_total is None:
        return None
    return current * other_total - other_current * total
