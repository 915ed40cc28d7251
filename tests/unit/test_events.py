"""Patches fold without losing a status or a log line, and travel unharmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.events import (
    LOG_LEVELS,
    STATUSES,
    BadEntry,
    LogLine,
    Patch,
    decode,
    encode,
    fold,
    run_uuid,
    version_of,
)
from bridge.messages import messages_for
from bridge.rows import _element
from bridge.testing import MemoryRows
from bridge.testing.merging import WRITABLE

RUNS = [run_uuid(f"run-{number}") for number in range(3)]

unhurried = settings(deadline=None)  # how long one example takes says more of the machine than of the code

texts = st.text(st.characters(codec="utf-8"), max_size=20)
log_lines = st.builds(
    LogLine,
    st.sampled_from(LOG_LEVELS),
    texts,
    st.just(1.5),
    st.none() | st.dictionaries(texts, st.integers()),
)
field_sets = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(sorted(STATUSES)),
        "progress": st.integers(0, 100),
        "message": texts,
        "queue_position": st.integers(1, 3),
    },
)
patches = st.builds(
    Patch,
    run_id=st.sampled_from(RUNS),
    attempt=st.integers(1, 2),
    at=st.just(2.5),
    fields=field_sets,
    logs=st.lists(log_lines, max_size=2),
    fresh=st.booleans(),
    existing=st.booleans(),
    parts=st.integers(0, 3),
    expected=st.none() | st.integers(0, 2**63 - 1),
)
histories = st.lists(patches, max_size=30)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([10**400, -(2**63) - 1, 2**63, "\x00", "\ud800", RUNS[0], "queued", "info"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
columns = st.sampled_from([*sorted(WRITABLE), "id", "seq", "version", "attempt", "log_seq", "parts", "x"])
near_entries = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(RUNS) | json_values,
        "n": st.integers(0, 2) | json_values,
        "at": st.just(1.0) | json_values,
        "set": st.dictionaries(columns, json_values, max_size=3) | field_sets | json_values,
        "logs": st.lists(
            st.tuples(st.just("info"), texts, st.just(1.0), json_values) | json_values, max_size=2
        )
        | json_values,
        "fresh": st.booleans() | json_values,
        "existing": st.booleans() | json_values,
        "parts": st.integers(0, 3) | json_values,
        "expected": st.integers(0, 3) | json_values,
    },
).map(lambda entry: json.dumps({"id": RUNS[0], "n": 1, "at": 1.0, **entry}).encode("utf-8", "replace"))


def copies(history: list[Patch]) -> list[Patch]:
    return [decode(f"{number + 1}-0", encode(patch)) for number, patch in enumerate(history)]


@unhurried
@given(patches)
def test_a_patch_survives_the_journey(patch: Patch) -> None:
    back = decode("7-3", encode(patch))
    assert back.version == version_of("7-3")
    assert all(line.version == back.version for line in back.logs)
    back.version = 0
    for line in back.logs:
        line.version = 0
    assert back == patch


@unhurried
@given(histories)
def test_folding_keeps_every_status_and_line_in_order(history: list[Patch]) -> None:
    folded = fold(copies(history))
    for run in RUNS:
        before = [patch for patch in copies(history) if patch.run_id == run]
        after = [patch for patch in folded if patch.run_id == run]
        assert [p.status for p in after if p.status] == [p.status for p in before if p.status]
        assert [line for p in after for line in p.logs] == [line for p in before for line in p.logs]
        assert [p.version for p in after] == sorted(p.version for p in after)
        if before:
            assert after[-1].version == before[-1].version


@unhurried
@given(histories)
def test_folding_ends_with_the_same_values(history: list[Patch]) -> None:
    def last_values(some: list[Patch]) -> dict[tuple[str, str], object]:
        return {(p.run_id, name): value for p in some for name, value in p.fields.items()}

    assert last_values(fold(copies(history))) == last_values(history)


def test_progress_between_two_states_costs_no_patch_of_its_own() -> None:
    run = RUNS[0]
    started = Patch(run, 1, 0, {"status": "in_progress"})
    reports = [Patch(run, 1, 0, {"progress": percent}) for percent in range(100)]
    done = Patch(run, 1, 0, {"status": "completed", "progress": 100})
    folded = fold([started, *reports, done])
    assert [(p.status, p.fields["progress"]) for p in folded] == [("in_progress", 99), ("completed", 100)]


def test_places_in_the_line_are_one_patch_and_never_cost_a_status() -> None:
    run = RUNS[0]

    def waits() -> Patch:
        return Patch(run, 1, 0, {"status": "waiting", "wait_reason": "limit", "queue_position": 9})

    def place(position: int) -> Patch:
        return Patch(run, 1, 0, {"queue_position": position}, existing=True)

    early = [place(8), place(7)]
    folded = fold(
        [*early, waits(), place(3), place(2), Patch(run, 1, 0, {"status": "in_progress"}), place(1)]
    )
    assert [(p.status, p.fields.get("queue_position"), p.existing) for p in folded] == [
        (None, 7, True),  # it makes no row, so nothing that does may be folded into it
        ("waiting", 2, False),
        ("in_progress", 1, False),
    ]
    assert folded[1].fields["wait_reason"] == "limit"


@unhurried
@given(st.binary(max_size=80))
def test_any_bytes_are_a_patch_or_a_bad_entry(raw: bytes) -> None:
    with contextlib.suppress(BadEntry):
        assert decode("1-0", raw).run_id


@example([json.dumps({"id": RUNS[0], "n": 1, "at": 1.0, "set": {"parent_id": [None]}}).encode()], None)
@given(st.lists(near_entries, max_size=6), st.none() | st.sampled_from(["1-0", "9-0", "", "9" * 30, "a"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_nearly_an_entry_is_written_or_set_apart(raws: list[bytes], first: str | None) -> None:
    """Each is a patch or a `BadEntry`, and no patch is more than folding, rows and messages can bear."""
    patches = []
    for number, raw in enumerate(raws):
        with contextlib.suppress(BadEntry):
            patches.append(decode(f"{number + 2}-0", raw, first))
    for patch in deepcopy(patches):
        assert json.loads(_element(patch))["id"] == patch.run_id
    messages_for(asyncio.run(MemoryRows().mirror(fold(patches))))


@pytest.mark.parametrize(
    ("first", "stream_id", "version"),
    [
        (None, "7-1", "7-1"),
        ("5-3", "7-1", "5-3"),
        ("7-1", "7-1", "7-1"),
        ("7-2", "7-1", None),
        ("8-0", "7-1", None),
        ("9" * 30 + "-0", "7-1", None),
        ("-5-0", "7-1", None),
        ("5", "7-1", None),
        ("", "7-1", None),
        ("\u0665-0", "7-1", None),
    ],
)
def test_a_replayed_entry_is_as_old_as_it_says_and_never_newer_than_it_is(
    first: str | None, stream_id: str, version: str | None
) -> None:
    raw = encode(Patch(RUNS[0], 1, 0.0, {"step": "x"}, [LogLine("info", "line", 0.0)]))
    if version is None:
        with pytest.raises(BadEntry):
            decode(stream_id, raw, first)
    else:
        patch = decode(stream_id, raw, first)
        assert patch.version == patch.logs[0].version == version_of(version)


def test_nothing_is_folded_with_what_is_replayed() -> None:
    def told(number: int, status: str, first: str | None = None) -> Patch:
        return decode(f"{number}-0", encode(Patch(RUNS[0], 1, 0.0, {status: 1})), first)

    folded = fold(
        [told(1, "current"), told(5, "total", "2-0"), told(6, "progress", "3-0"), told(4, "current")]
    )
    assert [patch.version for patch in folded] == [version_of(f"{number}-0") for number in (1, 2, 3, 4)]


def test_nothing_is_folded_with_what_expects_a_version_of_its_row() -> None:
    told = [Patch(RUNS[0], 1, 0.0, {name: 1}) for name in ("current", "total", "progress", "current")]
    told[1].expected, told[2].expected = 3, 3
    assert [patch.expected for patch in fold(told)] == [None, 3, 3, None]


@pytest.mark.parametrize("version", [-1, 2**63, 1.0, True, "3", []])
def test_an_expected_version_that_is_none_is_refused(version: object) -> None:
    entry = {"id": RUNS[0], "n": 1, "at": 1.0, "expected": version}
    with pytest.raises(BadEntry, match="expected is no version"):
        decode("1-0", json.dumps(entry).encode())


def test_values_nested_too_deeply_to_be_read_again_are_refused_and_the_deepest_others_pass() -> None:
    def entry(levels: int) -> bytes:
        return b'{"id":"%s","n":1,"at":1,"set":{"result":%s}}' % (
            RUNS[0].encode(), b"[" * levels + b"]" * levels,
        )  # fmt: skip

    assert decode("1-0", entry(98)).fields["result"]
    for levels in (99, 800, 990, 100_000):
        with pytest.raises(BadEntry):
            decode("1-0", entry(levels))
    wide = json.dumps({"id": RUNS[0], "n": 1, "at": 1, "set": {"result": [[]] * 1_000}}).encode()
    assert len(decode("1-0", wide).fields["result"]) == 1_000


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("id", "not-a-uuid"),
        ("n", -1),
        ("n", True),
        ("n", "1"),
        ("set", []),
        ("set", {"status": "done"}),
        ("set", {"queue_position": 0}),
        ("set", {"queue_position": -1}),
        ("set", {"queue_position": "2"}),
        ("set", {"queue_position": 2.0}),
        ("set", {"queue_position": True}),
        ("set", {"queue_position": [1]}),
        ("set", {"queue_position": 2**31}),
        ("set", {"status": "waiting", "wait_reason": {"a": 1}}),
        ("logs", [["shout", "x", 1]]),
        ("logs", [["info", 5, 1]]),
        ("set", {"progress": "40"}),
        ("set", {"progress": 40.0}),
        ("set", {"progress": True}),
        ("set", {"current": 2**63}),
        ("set", {"total": -(2**63) - 1}),
        ("set", {"max_attempts": [1]}),
        ("at", "soon"),
        ("at", 10**400),
        ("at", float("inf")),
        ("at", float("nan")),
        ("at", -1),
        ("at", 1e15),
        ("logs", [["info", "x", 10**400]]),
        ("logs", [["info", "x", float("nan")]]),
        ("parts", 2**40),
    ],
)
def test_an_entry_with_a_wrong_part_is_refused(change: str, value: object) -> None:
    entry = {"id": RUNS[0], "n": 1, "at": 1.0, "set": {}, "logs": []}
    decode("1-0", json.dumps(entry).encode())
    with pytest.raises(BadEntry):
        decode("1-0", json.dumps({**entry, change: value}).encode())


def test_versions_rise_with_stream_ids_and_fit_a_bigint() -> None:
    ids = ["1-0", "1-1", "1-900000", "2-0", "1795219829346-0", "1795219829346-1", "8795219829346-0"]
    versions = [version_of(one) for one in ids]
    assert versions == sorted(set(versions))
    assert versions[-1] < 2**63


@pytest.mark.parametrize("text", ["", "1", "-1-0", "1-0-0", "a-b", "1-0\n", "8796093022208-0", "\u0661-0"])
def test_what_is_no_stream_id_is_refused(text: str) -> None:
    with pytest.raises(BadEntry):
        version_of(text)


def test_a_task_id_of_any_form_has_one_row_id() -> None:
    known = "0a1b2c3d-0000-4000-8000-000000000001"
    assert run_uuid(known) == known
    assert run_uuid(known.upper()) == known
    assert run_uuid("my own id") == run_uuid("my own id") != run_uuid("my own id ")
