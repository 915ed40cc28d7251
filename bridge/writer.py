"""Writing a batch until it is written: outages are waited out, what can never be written is set apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from bridge.backoff import Outage
from bridge.errors import BatchRefused, BatchTooLarge, KeyRefused, SchemaMissing, SupabaseUnavailable
from bridge.events import Patch, fold
from bridge.reader import Batch
from bridge.rows import Mirrored, Rows

log = logging.getLogger(__name__)

WAITED_OUT = (SupabaseUnavailable, KeyRefused, SchemaMissing)


class Writer:
    """One call writes one read's worth; it returns when all of it is in the rows or among the dead."""

    def __init__(self, rows: Rows, chunk: int, max_delay: timedelta) -> None:
        self._rows, self._chunk = rows, chunk
        self.outage = Outage("rows", "nothing is lost, the outbox keeps it", max_delay)

    async def write(self, batch: Batch) -> list[Mirrored]:
        """Merge and write; refused entries are added to `batch.dead`."""
        patches = fold(batch.ordered())
        results: list[Mirrored] = []
        for start in range(0, len(patches), self._chunk):
            results.extend(await self._halves(patches[start : start + self._chunk], batch))
        return results

    async def _halves(self, patches: Sequence[Patch], batch: Batch) -> list[Mirrored]:
        try:
            return await self._patiently(patches)
        except (BatchRefused, BatchTooLarge) as refusal:
            if len(patches) == 1:
                return await self._one_by_one(patches[0], batch, refusal)
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
                results.extend(await self._patiently([patch]))
            except (BatchRefused, BatchTooLarge) as final:
                batch.dead.append((entry, final.reason if isinstance(final, BatchRefused) else "too large"))
        return results

    async def _patiently(self, patches: Sequence[Patch]) -> list[Mirrored]:
        while True:
            try:
                results = await self._rows.mirror(patches)
            except WAITED_OUT as error:
                await asyncio.sleep(self.outage.failed(error))
            else:
                self.outage.healed()
                return results
