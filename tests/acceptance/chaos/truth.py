"""How long what was shown was not true: from a fault's end until rows and clients tell what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.events import FINAL_STATUSES
from tests.acceptance.chaos.faults import Fault
from tests.acceptance.chaos.journal import Execution
from tests.acceptance.chaos.views import Turn

_GONE = frozenset({"queued", "waiting", "scheduled", "retrying", *FINAL_STATUSES})


@dataclass(frozen=True)
class Event:
    """Something that came to be true of a run, and how to tell that it is shown."""

    run: str
    at: float
    what: str
    shown: Callable[[Turn], bool]


def events(executions: Iterable[Execution]) -> list[Event]:
    """Starts, ends and deaths of bodies."""
    found = []
    for each in executions:
        found.append(Event(each.run, each.since, "start", _started(each)))
        if not each.end:
            found.append(Event(each.run, each.until, "death", _gone(each)))
        elif each.end != "left:Ignore":  # which goes on as something else
            found.append(Event(each.run, each.until, each.end, _ended(each)))
    return found


def _started(each: Execution) -> Callable[[Turn], bool]:
    return lambda turn: turn.status in ("in_progress", *FINAL_STATUSES) or turn.attempt > each.attempt


def _gone(each: Execution) -> Callable[[Turn], bool]:
    """Whatever does not say that this attempt still goes on."""
    return lambda turn: turn.attempt > each.attempt or (turn.at > each.until and turn.status in _GONE)


def _ended(each: Execution) -> Callable[[Turn], bool]:
    if each.end == "left:Retry":
        return lambda turn: turn.attempt > each.attempt or turn.status in ("retrying", *FINAL_STATUSES)
    return lambda turn: turn.status in FINAL_STATUSES


def time_to_true(
    fault: Fault, happened: Sequence[Event], views: Sequence[Mapping[str, Sequence[Turn]]]
) -> float | None:
    """Seconds from the fault's end until all that happened during it was shown; None if nothing happened."""
    during = [event for event in happened if fault.begin <= event.at <= fault.end + 0.05]
    times = [shown for event in during for view in views if (shown := _shown_at(event, view)) is not None]
    return max(0.0, max(times) - fault.end) if times else None


def _shown_at(event: Event, view: Mapping[str, Sequence[Turn]]) -> float | None:
    """When a view first told this or something later."""
    return next((turn.at for turn in view.get(event.run, ()) if event.shown(turn)), None)
