"""What was shown of each run, and when: as the rows had it, and as a client saw it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.events import FINAL_STATUSES
from tests.acceptance.chaos.journal import now

SHOWN = (
    "status", "state", "attempt", "progress", "current", "total", "message", "result", "error_code",
    "parent_id", "seq", "created_at", "started_at", "finished_at",
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """What a run was shown as from a moment on."""

    at: float
    status: str
    attempt: int
    progress: int
    seq: int


class Views:
    """The newest snapshot of each run by its `seq`, as our page keeps it, and the turns it took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last: dict[str, dict[str, Any]] = {}
        self.turns: dict[str, list[Turn]] = {}

    def accept(self, run: str, snapshot: Mapping[str, Any]) -> bool:
        """Keep a snapshot unless one as new is known."""
        with self._lock:
            known = self.last.get(run)
            if known is not None and known["seq"] >= snapshot["seq"]:
                return False
            self.last[run] = {name: snapshot.get(name) for name in SHOWN}
            self.turns.setdefault(run, []).append(
                Turn(now(), *(snapshot[name] for name in ("status", "attempt", "progress", "seq")))
            )
            return True

    def status(self, run: str) -> str | None:
        known = self.last.get(run)
        return None if known is None else known["status"]

    def any_alive(self) -> bool:
        with self._lock:
            return any(each["status"] not in FINAL_STATUSES for each in self.last.values())

    def below(self, run: str) -> list[str]:
        """The runs that have this one as their parent."""
        with self._lock:
            return [key for key, each in self.last.items() if each["parent_id"] == run]


def merged(views: Iterable[Views]) -> Views:
    """The views of several users as one."""
    whole = Views()
    for each in views:
        whole.last |= each.last
        whole.turns |= each.turns
    return whole
