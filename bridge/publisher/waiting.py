"""Broadcasts that wait for their turn: final states first, then states, progress, log lines.

While a run's messages wait, its snapshots are merged, latest wins: listeners catch up with the present,
not with the past. For the same reason progress out of a partition that is read long after it was written
is held: what follows it there makes it stale.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from bridge.messages import Message

_LOG_LINES: Final = 200
_CLASSES: Final = ("final", "state", "progress", "log", "held")


@dataclass(slots=True)
class Pending:
    """What one run has waiting."""

    run_id: str
    partition: int
    states: list[Message] = field(default_factory=list)
    progress: Message | None = None
    logs: deque[Message] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    stored: bool = False  # the run is in the outbox's set of unsent runs as well

    @property
    def has_snapshot(self) -> bool:
        return bool(self.states) or self.progress is not None

    def urgency(self, held: bool) -> str:
        if any(state.final for state in self.states) or (self.progress is not None and self.progress.final):
            return "final"
        if self.states:
            return "state"
        if self.progress is not None and not held:
            return "progress"
        return "log" if self.logs else "held"

    def add(self, message: Message) -> None:
        if message.event == "log":
            self.logs.append(message)
        elif message.event == "state":
            if not self.states or self.states[-1].number < message.number:
                self.states.append(message)
            self._refresh(message)
        elif self.progress is None or self.progress.number <= message.number:
            self.progress = message

    def _refresh(self, state: Message) -> None:
        # A progress message that waits behind a newer state must not show the older snapshot after it.
        if self.progress is not None and self.progress.number < state.number:
            self.progress = Message(
                state.run_id, state.topic, "progress", state.number, state.payload, state.final
            )

    def remove(self, sent: Message) -> None:
        if sent.event == "log":
            self.logs = deque((line for line in self.logs if line.number > sent.number), _LOG_LINES)
        elif sent.event == "state":
            self.states = [state for state in self.states if state.number > sent.number]
        elif self.progress is not None and self.progress.number <= sent.number:
            self.progress = None


class Waiting:
    """All of it, by run; every method takes time in proportion to what it is given, not to what waits."""

    def __init__(self) -> None:
        self._runs: dict[str, Pending] = {}
        self._queues: dict[str, dict[str, Pending]] = {name: {} for name in _CLASSES}
        self._place: dict[str, str] = {}
        self._held: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    @property
    def ready(self) -> int:
        """How many runs have something that may be sent."""
        return len(self._runs) - len(self._queues["held"])

    @property
    def holds(self) -> bool:
        """Whether the progress of any partition is held."""
        return bool(self._held)

    def hold(self, partitions: Collection[int]) -> None:
        """Hold the progress of these partitions, and let go what was held of others."""
        if self._held != set(partitions):
            self._held = frozenset(partitions)
            concerned = [self._queues[name].values() for name in ("progress", "log", "held")]
            for pending in list(chain.from_iterable(concerned)):
                self._file(pending)

    def add(self, message: Message, partition: int, stored: bool = False) -> None:
        """Let a message wait; an older progress or state of the run than one that waits is left out."""
        pending = self._runs.get(message.run_id)
        if pending is None:
            pending = self._runs[message.run_id] = Pending(message.run_id, partition)
        pending.stored = pending.stored or stored
        pending.add(message)
        self._file(pending)

    def unsent(self, run_ids: Iterable[str]) -> list[Pending]:
        """Those of these runs whose snapshot waits."""
        found = (self._runs.get(run_id) for run_id in run_ids)
        return [pending for pending in found if pending is not None and pending.has_snapshot]

    def settle(self, run_ids: Iterable[str]) -> None:
        """Merge what these runs could not send at once: of several states, the last stays."""
        for pending in self.unsent(run_ids):
            del pending.states[:-1]

    def peek(self, count: int, size: int) -> list[Message]:
        """The next messages, at most `count`, and `size` bytes unless the first alone is larger."""
        chosen: list[Message] = []
        for message in islice(self._in_turn(), count):
            size -= len(message.payload)
            if chosen and size < 0:
                break
            chosen.append(message)
        return chosen

    def remove(self, messages: Iterable[Message]) -> list[Pending]:
        """Take out what was sent; returns the runs that have no snapshot waiting any more."""
        done: dict[str, Pending] = {}
        for message in messages:
            pending = self._runs.get(message.run_id)
            if pending is None:
                continue
            had_snapshot = pending.has_snapshot
            pending.remove(message)
            self._file(pending)
            if had_snapshot and not pending.has_snapshot:
                done[pending.run_id] = pending
        return list(done.values())

    def drop(self, partition: int) -> None:
        """Forget a partition that another replica reads now."""
        for pending in [each for each in self._runs.values() if each.partition == partition]:
            self._forget(pending)

    def evict(self, room: int) -> None:
        """Keep at most `room` runs in memory, the urgent ones longest; the unsent set keeps the others."""
        surplus = max(0, len(self._runs) - room)
        by_need = chain.from_iterable(self._queues[name].values() for name in reversed(_CLASSES))
        for pending in list(islice(by_need, surplus)):
            if pending.stored or not pending.has_snapshot:
                self._forget(pending)

    def _in_turn(self) -> Iterator[Message]:
        for name in ("final", "state", "progress"):
            for pending in self._queues[name].values():
                yield from pending.states
                if pending.progress is not None and (name == "final" or pending.partition not in self._held):
                    yield pending.progress
        for pending in self._runs.values():
            yield from pending.logs

    def _file(self, pending: Pending) -> None:
        if not pending.has_snapshot and not pending.logs:
            return self._forget(pending)
        name = pending.urgency(pending.partition in self._held)
        place = self._place.get(pending.run_id)
        if place != name:
            if place is not None:
                del self._queues[place][pending.run_id]
            self._queues[name][pending.run_id] = pending
            self._place[pending.run_id] = name
        return None

    def _forget(self, pending: Pending) -> None:
        self._runs.pop(pending.run_id, None)
        place = self._place.pop(pending.run_id, None)
        if place is not None:
            del self._queues[place][pending.run_id]
