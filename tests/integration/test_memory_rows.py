"""The in-memory rows do exactly what the SQL function does, on any history of patches."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from bridge.events import LOG_LEVELS, STATUSES, LogLine, Patch, fold
from bridge.local.running import RunningStack
from bridge.rows import _element, _mirrored
from bridge.testing import MemoryRows

RUNS = [str(uuid.UUID(int=number)) for number in range(1, 5)]
TIMES = ("at", "created_at", "started_at", "finished_at")

fields = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(sorted(STATUSES)),
        "state": st.sampled_from(["PENDING", "STARTED", None]),
        "progress": st.integers(-5, 120),
        "current": st.one_of(st.none(), st.integers(0, 9)),
        "message": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3)),
        "step": st.sampled_from(["Import", "Topics", None]),
        "wait_reason": st.sampled_from(["limit", None]),
        "queue_position": st.one_of(st.none(), st.integers(1, 3)),
        "result": st.one_of(st.none(), st.just({"a": [1]})),
        "result_url": st.sampled_from(["/x", None]),
        "error_code": st.sampled_from(["timeout", None]),
        "task": st.sampled_from(["import", "classify"]),
        "channel": st.sampled_from(["c-1", "c-2"]),
        "parent_id": st.sampled_from([*RUNS, None]),
        "max_attempts": st.integers(1, 3),
        "started_at": st.just("2026-01-01T00:00:00+00:00"),
        "no_such_column": st.just(1),
    },
)
places = st.fixed_dictionaries(
    {"queue_position": st.integers(1, 3)},
    optional={"wait_reason": st.sampled_from(["limit", "paused", None])},
)
lines = st.builds(
    LogLine,
    level=st.sampled_from(LOG_LEVELS),
    message=st.sampled_from(["a", "b", ""]),
    at=st.just(1_700_000_001.5),
    data=st.one_of(st.none(), st.just({"k": None})),
)


@st.composite
def histories(draw: st.DrawFn) -> list[list[Patch]]:
    """Batches of patches, versions rising but for steps back, some delivered and folded again."""
    patches: list[Patch] = []
    for number in range(1, draw(st.integers(1, 14)) + 1):
        version = number - draw(st.sampled_from([0, 0, 0, 5]))  # a failed-over Redis may step back
        kind = draw(st.sampled_from([fields, fields, places]))
        logs = [deepcopy(each) for each in draw(st.lists(lines, max_size=1 if kind is places else 2))]
        for each in logs:
            each.version = version
        patches.append(
            Patch(
                run_id=draw(st.sampled_from(RUNS)),
                attempt=draw(st.sampled_from([0, 1, 1, 1, 2, 3])),
                at=1_700_000_000.0 + version,
                fields=draw(kind),
                logs=logs,
                fresh=draw(st.booleans()),
                existing=draw(st.sampled_from([kind is places] * 3 + [True])),
                parts=draw(st.integers(0, 3)),
                version=version,
                expected=draw(st.sampled_from([None] * 4 + [version - 1, version - 2])),
            )
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(patches)), max_size=3)))
    batches, start = [], 0
    for end in [*cuts, len(patches)]:
        again = draw(st.integers(0, start))
        batches.append(fold(deepcopy(patches[again:end])))
        start = end
    return batches


turns = st.one_of(
    places,
    places.map(lambda place: {"status": "waiting", "state": "PENDING", **place}),
    st.sampled_from(["in_progress", "queued", "retrying", "cancelling"]).map(lambda name: {"status": name}),
)


@st.composite
def waits(draw: st.DrawFn) -> list[list[Patch]]:
    """One run that waits, starts, goes back and waits again, told by several processes in any order."""
    patches = [
        Patch(
            run_id=RUNS[0],
            attempt=draw(st.sampled_from([0, 1, 1, 1, 2])),
            at=1_700_000_000.0 + version,
            fields=draw(turns),
            fresh=draw(st.booleans()),
            existing=draw(st.sampled_from([False, False, True])),
            version=version,
        )
        for version in range(1, draw(st.integers(2, 8)) + 1)
    ]
    return [fold([each]) for each in patches] if draw(st.booleans()) else [fold(patches)]


def comparable(results: list[Any]) -> list[Any]:
    """Results without the time of writing, other times as instants."""
    plain = [asdict(result) for result in results]
    for result in plain:
        for current in [result["current"], *result["parents"]]:
            if current is not None:
                current["snapshot"]["at"] = None
        for described in [result["current"], *result["parents"]]:
            _parse_times((described or {}).get("snapshot", {}))
        for line in result["logs"]:
            _parse_times(line)
    return plain


def _parse_times(values: dict[str, Any]) -> None:
    for name in TIMES:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name]).timestamp()


@pytest.fixture(scope="module")
def connection(stack: RunningStack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        yield connection
        connection.rollback()


on_the_stack = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def agree(connection: psycopg.Connection[dict[str, Any]], history: list[list[Patch]]) -> None:
    memory = MemoryRows()
    with connection.transaction(force_rollback=True):
        for batch in history:
            body = "[" + ",".join(_element(patch).decode() for patch in batch) + "]"
            found = connection.execute("select public.mirror_runs(%s::jsonb) as results", (body,)).fetchone()
            assert found is not None
            by_sql = [_mirrored(result) for result in found["results"]]
            by_memory = asyncio.run(memory.mirror(deepcopy(batch)))
            assert comparable(by_memory) == comparable(by_sql)


@on_the_stack
@given(history=histories())
def test_memory_and_sql_agree_on_every_history(
    connection: psycopg.Connection[dict[str, Any]], history: list[list[Patch]]
) -> None:
    agree(connection, history)


@on_the_stack
@given(history=waits())
def test_memory_and_sql_agree_on_runs_that_wait(
    connection: psycopg.Connection[dict[str, Any]], history: list[list[Patch]]
) -> None:
    agree(connection, history)
