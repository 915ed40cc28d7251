"""What the Lua commands behind limits are asked, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Unacked:
    """Where the broker keeps a message until it is acked, when the broker is this very Redis."""

    hash: str
    index: str
    tag: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to park: its bytes, the list to grant it into ("" where it has to be published), and
    what reports of its position need."""

    message: bytes
    queue: str
    meta: str
    expires_at: int = 0  # ms since the epoch, 0 for never
    unacked: Unacked | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One attempt of a run at the gates of its lane."""

    member: str
    worker: str
    lane: str
    units: tuple[int, ...] = ()
    priority: int = 0  # 0 is first
    mode: str = "wait"
    parked_under: str = ""
    meta: str = ""  # what reports of it need
    early: bool = False  # its message is acked before it executes


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt.

    `word` is one of run, full, waiting, dropped, duplicate, spare, unknown. `holder` names the slots
    of a run; `gate` and `position` (from 1) say what a waiting run waits for, and where;
    `victims` are the runs that it replaces. `deaths` counts the attempts that ended with their worker.
    """

    word: str
    holder: str = ""
    gate: str = ""
    position: int = 0
    victims: tuple[Victim, ...] = ()
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Victim:
    """A run that a newer one of `on_limit="cancel_running"` replaces; without a worker it waits."""

    member: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run to be ended without having started."""

    member: str
    why: str
    message: bytes
    meta: str = ""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has found."""

    is_pacer: bool
    next_in: timedelta
    outgoing: int
    buried: int
    freed: int
    died: tuple[str, ...]  # what reports of each run need whose attempt ended with its worker
    ended: tuple[Ended, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A waiting run whose place or reason has changed."""

    meta: str
    position: int
    gate: str
    is_news: bool = False  # it went back into its line, after it had executed or been granted
