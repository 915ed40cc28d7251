"""Places in line: told again as they change, the foremost first, within a budget."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final

from bridge.events import Patch
from bridge.lifecycle import queued_again, waiting
from bridge.limits.answers import Moved
from bridge.limits.reasons import reason
from bridge.limits.scripts import LimitScripts

log = logging.getLogger(__name__)

_STRETCH: Final = 50
_LANES: Final = 50

Append = Callable[[str, Patch], None]


class Positions:
    """Reports changed places of waiting runs; one worker does it for all."""

    def __init__(self, scripts: LimitScripts, append: Append, per_second: int, clock: Callable[[], float]):
        self._scripts, self._append, self._budget, self._clock = scripts, append, per_second, clock
        self._cursor = 0
        self._offsets: dict[str, int] = {}

    def report(self) -> None:
        """Go on through the lanes: those at the head of each line, and a stretch further back.

        The gates where they stand are tried as well, so that a waiter that was overlooked, by whatever
        mistake, is overlooked for one round only.
        """
        self._cursor, lanes = self._scripts.lanes(self._cursor, _LANES)
        self._scripts.wake(sorted(set(lanes.values())))
        left = self._budget
        for lane in lanes:
            left -= self._tell(self._scripts.moved(lane, 0, min(left, _STRETCH) - 1)) if left > 0 else 0
            left -= self._further_back(lane, left) if left > 0 else 0
        if len(self._offsets) > 10 * _LANES:
            self._offsets.clear()

    def _further_back(self, lane: str, left: int) -> int:
        first = self._offsets.get(lane, _STRETCH)
        if first >= self._scripts.length(lane):
            self._offsets.pop(lane, None)
            return 0
        last = first + min(left, _STRETCH) - 1
        self._offsets[lane] = last + 1
        return self._tell(self._scripts.moved(lane, first, last))

    def _tell(self, moved: list[Moved]) -> int:
        for each in moved:
            meta: dict[str, Any] = json.loads(each.meta)
            if meta["mirror"]:
                for fields in _turns(each):
                    patch = Patch(meta["id"], meta["n"], self._clock(), fields, existing=True)
                    self._append(meta["root"], patch)
        return len(moved)


def _turns(moved: Moved) -> list[dict[str, Any]]:
    """What to tell of a run; one that went back is queued first, or it would stay in progress."""
    place = {"wait_reason": reason(moved.gate), "queue_position": moved.position}
    if not moved.is_news:
        return [place]
    return [queued_again(), waiting(reason(moved.gate), moved.position)]
