"""An outbox in memory."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from bridge.checkpoint import Checkpoint, Kept
from bridge.events import Patch, fold, version_of
from bridge.outbox import Entry
from bridge.rows import Mirrored
from bridge.testing.rows import MemoryRows


class MemoryOutbox:
    """An outbox that keeps everything in a list."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self._kept: dict[tuple[str, int], Kept] = {}
        self._taken: dict[str, Checkpoint] = {}

    def append(self, entries: Sequence[Entry]) -> None:
        for _, patch in entries:
            self._note_told(patch)
            kept = deepcopy(patch)
            kept.version = version_of(f"{len(self.patches) + 1}-0")
            for line in kept.logs:
                line.version = kept.version
            self.patches.append(kept)

    def fullness(self) -> float:
        return 0.0

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        key = checkpoint.run_id, checkpoint.nesting
        kept = self._kept.get(key, Kept())
        self._kept[key] = replace(kept, turn=kept.turn + 1)
        self._taken[checkpoint.run_id] = checkpoint
        return self._kept[key]

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        key = checkpoint.run_id, checkpoint.nesting
        if self._kept.get(key, Kept()).turn > checkpoint.turn:
            return False
        self._kept[key] = Kept(checkpoint.turn, checkpoint.state, checkpoint.told)
        return True

    def _note_told(self, patch: Patch) -> None:
        checkpoint = self._taken.get(patch.run_id)
        if checkpoint is None or checkpoint.attempt != patch.attempt or "current" not in patch.fields:
            return
        key = checkpoint.run_id, checkpoint.nesting
        if self._kept[key].turn == checkpoint.turn:
            told = patch.fields["current"], patch.fields.get("total")
            self._kept[key] = replace(self._kept[key], told=told)

    async def publish(self, rows: MemoryRows) -> list[Mirrored]:
        """Write all that was appended so far into `rows`, as a bridge would."""
        return await rows.mirror(fold(deepcopy(self.patches)))
