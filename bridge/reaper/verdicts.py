"""What a row says, held against where its run was seen; and how often that is looked at before it counts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from bridge.reaper.quiet import QuietRun
from bridge.reaper.whereabouts import Place, Whereabouts

_STARTED = frozenset({"in_progress", "cancelling"})

K = TypeVar("K", bound=Hashable)
F = TypeVar("F", bound=Hashable)


class Verdict(Enum):
    """What is wrong with a row."""

    WORKER_LOST = "no worker knows it"
    STALLED = "its message is gone"
    QUEUED = "it is in its queue again"
    WAITING = "it waits for a limit"


def verdict_on(run: QuietRun, seen: Whereabouts, comes_back: bool) -> Verdict | None:
    """What is wrong with the row, as far as one look can tell; None where it may be true.

    Args:
        comes_back: the broker gives the run's message back when its worker is lost (`acks_late`).
    """
    place = seen.of(run.run_id)
    if place is Place.KEPT or not seen.knows_workers:
        return None
    if place is Place.WAITING:
        if run.status == "waiting":
            return None
        return Verdict.QUEUED if run.status in _STARTED else Verdict.WAITING
    if place is Place.QUEUED:
        return Verdict.QUEUED if run.status in _STARTED or run.status == "waiting" else None
    if not seen.knows_messages:  # it may lie in a queue that nobody can look into
        lost = Verdict.QUEUED if comes_back else Verdict.WORKER_LOST
        return lost if run.status in _STARTED else None
    return Verdict.WORKER_LOST if run.status in _STARTED else Verdict.STALLED


@dataclass(slots=True)
class _Suspicion(Generic[F]):
    finding: F
    since: float
    times: int = 0


class Suspicions(Generic[K, F]):
    """Findings that count once they were made twice, so many seconds apart, and in every look between."""

    def __init__(self, apart: float) -> None:
        self._apart = apart
        self._held: dict[K, _Suspicion[F]] = {}

    def look(self, found: Mapping[K, F], now: float) -> dict[K, int]:
        """The findings of one look, `now` in seconds; returns those that count, and how often before.

        What counts is suspected anew: if it is not mended until then, it counts again.
        """
        held: dict[K, _Suspicion[F]] = {}
        counting: dict[K, int] = {}
        for key, finding in found.items():
            before = self._held.get(key)
            suspicion = before if before and before.finding == finding else _Suspicion(finding, now)
            if now - suspicion.since >= self._apart:
                counting[key] = suspicion.times
                suspicion = _Suspicion(finding, now, suspicion.times + 1)
            held[key] = suspicion
        self._held = held
        return counting
