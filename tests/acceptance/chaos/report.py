"""The table by fault class, and all that is known of a run that came to a bad end."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.acceptance.chaos.faults import LASTS, Fault
from tests.acceptance.chaos.verdict import AGAIN, BAD, DOUBLED, LOST, TOLD, WRONG, Story

_COLUMNS = ("fault class", "faults", "runs", LOST, DOUBLED, WRONG, AGAIN, TOLD, "p50 s", "max s")


@dataclass
class Line:
    """What came of the runs that were alive while faults of a class lasted."""

    faults: int = 0
    touched: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)


def table(faults: Sequence[Fault], stories: Sequence[Story], times: Sequence[float | None]) -> str:
    lines: dict[str, Line] = {}
    for fault, time in zip(faults, times, strict=True):
        line = lines.setdefault(fault.kind, Line())
        line.faults += 1
        line.touched |= {each.run for each in stories if _was_alive(each, fault)}
        line.times += [] if time is None else [time]
    rows = [_row(name, line, stories) for name, line in sorted(lines.items())]
    every = [time for time in times if time is not None]
    whole = Line(len(faults), {each.run for each in stories}, every)
    return "\n".join(_laid_out([_COLUMNS, *rows, _row("all", whole, stories)]))


def _was_alive(story: Story, fault: Fault) -> bool:
    return fault.overlaps(story.sent.at, LASTS if story.has(LOST) else story.until)


def _row(name: str, line: Line, stories: Iterable[Story]) -> tuple[str, ...]:
    touched = [story for story in stories if story.run in line.touched]
    counts = [sum(story.has(what) for story in touched) for what in (LOST, DOUBLED, WRONG, AGAIN, TOLD)]
    p50 = f"{statistics.median(line.times):.2f}" if line.times else "-"
    longest = f"{max(line.times):.2f}" if line.times else "-"
    return (name, str(line.faults), str(len(touched)), *map(str, counts), p50, longest)


def _laid_out(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])


def schedule(faults: Iterable[Fault], since: float) -> str:
    return "\n".join(
        f"{fault.begin - since:7.2f} .. {fault.end - since:7.2f}  {fault.kind}: {fault.detail}"
        for fault in faults
    )


def three_views(story: Story, since: float) -> str:
    """A bad run: what is bad, what its bodies did, its row, and what the client saw last."""
    sent = story.sent
    lines = [f"run {story.run} ({sent.kind}, user {sent.user}, sent at {sent.at - since:.2f})"]
    lines += [f"  {what.upper()}: {why}" for what, why in story.findings]
    for each in story.executions:
        lines.append(
            f"  body  {each.since - since:7.2f} .. {each.until - since:7.2f} {each.task} "
            f"attempt {each.attempt} on {each.worker} pid {each.pid}: {each.end or 'killed'}, "
            f"steps {_span(each.steps)}"
        )
    if not story.executions:
        lines.append("  body  never started")
    lines.append(f"  row   {_plain(story.row)}")
    lines.append(f"  client {_plain(story.seen)}")
    return "\n".join(lines)


def bad(stories: Iterable[Story]) -> list[Story]:
    return [story for story in stories if story.has(*BAD)]


def _span(steps: Sequence[int]) -> str:
    return f"{steps[0]} to {steps[-1]}" if steps else "none"


def _plain(view: object) -> str:
    return json.dumps(view, default=str) if view else "none"


def clock() -> str:
    return f"{datetime.now(UTC):%H:%M:%S}"
