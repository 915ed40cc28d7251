"""Whatever lies in the outbox is written or set apart, by the real rows, and holds up nothing beside it."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.events import LogLine, Patch, encode
from bridge.local.running import RunningStack
from bridge.messages import messages_for
from bridge.publisher.reader import Batch, Entry
from bridge.publisher.writer import Writer
from bridge.rows import SupabaseRows
from bridge.settings import SupabaseSettings
from bridge.testing.merging import WRITABLE
from tests.database import logs, rows
from tests.unit.test_events import RUNS, near_entries

TEXTS = ["\x00", "\ud800", "\\u0000", "infinity", "now()", "{", "[1", "'; --", "9" * 400, "x" * 3_000, "-0"]
VALUES = [10**400, 2**63, -(2**63), 1e308, -0.5, True, {}, [], [[None]], {"a": "\x00"}, [TEXTS]]
hostile = st.sampled_from([*TEXTS, *VALUES]) | st.integers() | st.text(max_size=5)
columns = st.sampled_from([*sorted(WRITABLE), "finished_at", "updated_at", "id", "seq"])
statuses = st.sampled_from(["queued", "in_progress", "waiting", "retrying", "completed"])
hostile_sets = st.fixed_dictionaries({"set": st.dictionaries(columns, hostile, min_size=1, max_size=3)})
stories = st.fixed_dictionaries({"set": st.fixed_dictionaries({"status": statuses})})


def raw_of(entry: dict[str, Any]) -> bytes:
    return json.dumps({"id": RUNS[0], "n": 1, "at": 1.0, **entry}).encode("utf-8", "replace")


raws = st.lists(
    st.binary(max_size=30) | near_entries | hostile_sets.map(raw_of) | stories.map(raw_of), max_size=12
)


@given(raws)
@example([raw_of({"set": {"result": []}}).replace(b"[]", b"[" * 96 + b"]" * 96)])
@example([raw_of({"set": {"started_at": "294277-01-01T00:00:00Z"}}), raw_of({"set": {"tags": {"a": 1}}})])
@example([raw_of({"set": {"parent_id": run}}) for run in RUNS])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_entry_holds_up_the_others(stack: RunningStack, raws: list[bytes]) -> None:
    fresh = {run.encode(): str(uuid.uuid4()).encode() for run in RUNS}  # rows of earlier examples stay out
    good = str(uuid.uuid4())
    story = [encode(Patch(good, 1, 1.0, {"status": status})) for status in ("queued", "in_progress")]
    end = encode(Patch(good, 1, 2.0, {"status": "completed"}, [LogLine("info", "the end", 2.0)]))
    batch = Batch()
    for number, raw in enumerate([story[0], *raws, story[1], *raws, end]):
        for known, new in fresh.items():
            raw = raw.replace(known, new)
        batch.add(Entry(0, f"{number + 1}-0", raw))

    async def write() -> None:
        own = SupabaseSettings(url=stack.url, key=stack.service_key)  # type: ignore[arg-type]
        real = SupabaseRows(own)
        writer = Writer(real, 500, timedelta(seconds=1))
        try:
            messages_for(await asyncio.wait_for(writer.write(batch), 30))
        finally:
            await real.close()
        assert not writer.outage

    asyncio.run(write())
    assert rows(stack, [good])[good]["status"] == "completed"
    assert [line["message"] for line in logs(stack, good)] == ["the end"]
    assert not [entry for entry, _ in batch.dead if good.encode() in entry.raw]
