"""What bodies wrote down of their starts and ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.lines import whole_lines
from tests.waiting import PATIENCE, wait_until


@dataclass(frozen=True, slots=True)
class Entry:
    at: int
    what: str
    run: str
    task: str
    label: str

    @property
    def seconds(self) -> float:
        return self.at / 1e9


class History:
    """The file of starts and ends; every look is at chosen runs, as all tests write to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, runs: Collection[str], what: str = "") -> list[Entry]:
        """The entries of these runs in the order of time."""
        found = (
            Entry(int(at), *rest) for at, *rest in (line.split(" ", 4) for line in whole_lines(self.path))
        )
        chosen = set(runs)
        return sorted(
            (each for each in found if each.run in chosen and what in each.what), key=lambda each: each.at
        )

    def starts(self, runs: Collection[str]) -> list[str]:
        """The runs that started, in the order in which they did."""
        return [each.run for each in self.of(runs, "start")]

    def ended(self, runs: Collection[str]) -> set[str]:
        return {each.run for each in self.of(runs, "end")}

    def most_at_once(self, runs: Collection[str], task: str = "") -> int:
        """The largest number of bodies, of one task or of any, that executed at one time."""
        most = running = 0
        for each in self.of(runs):
            if task not in ("", each.task):
                continue
            running += {"start": 1, "end": -1}.get(each.what, 0)
            most = max(most, running)
        return most

    def wait_for_starts(
        self, runs: Collection[str], count: int | None = None, timeout: float = PATIENCE
    ) -> None:
        expected = len(runs) if count is None else count
        wait_until(lambda: len(self.starts(runs)) >= expected, f"{expected} of {len(runs)} started", timeout)

    def wait_for_ends(self, runs: Collection[str], timeout: float = PATIENCE) -> None:
        wait_until(
            lambda: len(self.ended(runs)) == len(set(runs)), f"all {len(runs)} runs have ended", timeout, 0.05
        )

    def doubled(self, runs: Collection[str]) -> dict[str, int]:
        """Runs that started more than once."""
        return {run: count for run, count in Counter(self.starts(runs)).items() if count > 1}
