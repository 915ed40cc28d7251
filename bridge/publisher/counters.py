"""What a bridge process has done, and how full what it reads from is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.fullness import Gauge, outbox_gauge
from bridge.publisher.dead import DEAD_LENGTH
from bridge.publisher.reader import Batch
from bridge.rows import Mirrored

log = logging.getLogger(__package__)


def _dead_gauge() -> Gauge:
    remedy = "the oldest go at 100 %: look at them, replay or drop them with `celery -A <app> bridge dead`"
    return Gauge("the stream of dead entries", remedy)


@dataclass(slots=True)
class Counters:
    """Sums since the start; `lag` is of the last pass, in seconds.

    `dead_kept` and `outbox` are what lies in Redis, whichever replica put it there or reads it.
    """

    events: int = 0
    rows: int = 0
    dead: int = 0
    passes: int = 0
    lag: float = 0.0
    dead_kept: int = 0
    outbox: Gauge = field(default_factory=outbox_gauge)
    graves: Gauge = field(default_factory=_dead_gauge)

    def count(self, batch: Batch, results: Sequence[Mirrored]) -> None:
        """Add what a pass did."""
        self.passes += 1
        self.events += len(batch.entries)
        self.rows += sum(result.outcome == "applied" for result in results)
        self.lag = batch.lag()
        self.dead += len(batch.dead)
        if batch.dead:
            # The reasons may quote what users wrote; they lie beside the entries, not in the log.
            first = batch.dead[0][0]
            log.error(
                "outbox entries that can never be written: %d, such as %s of partition %d; "
                "`celery -A <app> bridge dead` shows them",
                len(batch.dead), first.entry_id, first.partition,
            )  # fmt: skip

    def measure(self, lengths: Sequence[int], cap: int, dead_kept: int) -> None:
        """Note how long the outbox's streams and that of the dead are."""
        self.outbox.note(max(lengths) / cap)
        self.dead_kept = dead_kept
        self.graves.note(dead_kept / DEAD_LENGTH)

    def stats(self) -> dict[str, Any]:
        """Counters and gauges by name."""
        return {
            "events": self.events,
            "rows": self.rows,
            "dead": self.dead,
            "dead_kept": self.dead_kept,
            "passes": self.passes,
            "lag": round(self.lag, 3),
            "fullness": round(self.outbox.value, 4),
        }
