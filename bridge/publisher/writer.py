"""Writing a batch until it is written: outages are waited out, what can never be written is set apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from bridge.backoff import Outage
from bridge.errors import (
    BatchRefused,
    BatchTooLarge,
    KeyRefused,
    SchemaMissing,
    SupabaseUnavailable,
    TooMuchAtOnce,
)
from bridge.events import Patch, fold
from bridge.publisher.reader import Batch
from bridge.rows import Mirrored, Rows

log = logging.getLogger(__package__)

WAITED_OUT = (SupabaseUnavailable, KeyRefused, SchemaMissing)


class Writer:
    """One call writes one read's worth; it returns when all of it is in the rows or among the dead.

    What is refused or takes too long is tried again in halves; as long as the other side is slow, requests
    stay small.
    """

    def __init__(self, rows: Rows, chunk: int, max_delay: timedelta) -> None:
        self._rows, self._chunk, self._size = rows, chunk, chunk
        self.outage = Outage("rows", "nothing is lost, the outbox keeps it", max_delay)

    async def write(self, batch: Batch) -> list[Mirrored]:
        """Merge and write; refused entries are added to `batch.dead`."""
        patches = fold(batch.ordered())
        results: list[Mirrored] = []
        start = 0
        while start < len(patches):
            part = patches[start : start + self._size]
            start += len(part)
            results.extend(await self._halves(part, batch))
        return results

    async def _halves(self, patches: Sequence[Patch], batch: Batch) -> list[Mirrored]:
        try:
            return await self._patiently(patches)
        except (BatchRefused, BatchTooLarge) as refusal:
            if len(patches) == 1:
                return await self._one_by_one(patches[0], batch, refusal)
        except TooMuchAtOnce:
            self._size = max(1, len(patches) // 2)
        middle = len(patches) // 2
        return await self._halves(patches[:middle], batch) + await self._halves(patches[middle:], batch)

    async def _one_by_one(self, folded: Patch, batch: Batch, refusal: Exception) -> list[Mirrored]:
        # Only some of the entries that were folded together may be bad; versions make repeats harmless.
        results: list[Mirrored] = []
        for entry, patch in batch.entries_of(folded.run_id):
            if patch.version > folded.version:
                break
            if any(entry is dead for dead, _ in batch.dead):
                continue
            try:
                results.extend(await self._alone(patch))
            except (BatchRefused, BatchTooLarge) as final:
                batch.dead.append((entry, final.reason if isinstance(final, BatchRefused) else "too large"))
        return results

    async def _alone(self, patch: Patch) -> list[Mirrored]:
        try:
            return await self._patiently([patch])
        except BatchTooLarge as error:
            await self._until_read(error)
        return await self._patiently([patch])

    async def _until_read(self, error: Exception) -> None:
        """Go on when a small request passes: who refuses everything as too large is away."""
        while True:
            try:
                return await self._rows.check()
            except WAITED_OUT:
                await asyncio.sleep(self.outage.failed(error))

    async def _patiently(self, patches: Sequence[Patch]) -> list[Mirrored]:
        while True:
            try:
                results = await self._rows.mirror(patches)
            except WAITED_OUT as error:
                await asyncio.sleep(self.outage.failed(error))
                if isinstance(error, TooMuchAtOnce) and len(patches) > 1:
                    raise
            else:
                self.outage.healed()
                self._size = min(self._chunk, self._size + 1 + self._size // 2)
                return results
