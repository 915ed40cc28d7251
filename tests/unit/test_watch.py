"""How a followed channel looks in the terminal."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from realtime.message import ServerMessageAdapter

from bridge.errors import SupabaseUnavailable
from bridge.watch import _event, _recent, bar_of, json_of, line_of
from tests.unit.test_supabase_answers import status, supabase

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
RUN = "7d1c0000-0000-0000-0000-000000000000"


def test_a_snapshot_is_one_line_with_a_bar() -> None:
    payload = {"run_id": RUN, "status": "in_progress", "progress": 40, "message": "Importing mastodon..."}
    assert line_of("progress", payload, NOON) == (
        "12:00:00 progress in_progress ########............  40 % 7d1c0000 Importing mastodon..."
    )


def test_lines_of_all_events_are_aligned() -> None:
    snapshot = {"run_id": RUN, "status": "queued", "progress": 0, "message": None, "step": None}
    line = {"run_id": RUN, "status": "completed", "level": "info", "message": "done"}
    shown = [line_of("state", snapshot, NOON), line_of("log", line, NOON)]
    assert len({text.index("7d1c0000") for text in shown}) == 1
    assert shown[1].endswith("info: done")


def test_control_characters_of_users_do_not_reach_the_terminal() -> None:
    payload = {"run_id": RUN, "status": "queued", "progress": 0, "message": "a\x1b[2Jb\x07\u202ec"}
    assert line_of("state", payload, NOON).endswith("a[2Jbc")


def test_the_bar_holds_any_percentage() -> None:
    assert {len(bar_of(percent)) for percent in (-5, 0, 33, 100, 500)} == {20}
    shown = {len(line_of("progress", {"progress": percent}, NOON)) for percent in (-5, 7, 10**4_000)}
    assert len(shown) == 1


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {
            "run_id": None,
            "status": "\x1b[2J",
            "progress": "\x1b]0;x\x07",
            "message": "a\n12:00:00 state forged",
        },
        {"run_id": "\x1b[2J", "status": {"a": 1}, "progress": [5], "message": ["\x9b2J"], "level": "\x1b[2J"},
    ],
)
@pytest.mark.parametrize("event", ["state", "progress", "log", "away"])
def test_a_forged_message_is_one_harmless_line(event: str, payload: dict[str, Any]) -> None:
    """On a public channel anybody sends anything."""
    assert line_of(event, payload, NOON).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from([7, 10**4_000, "x" * 9_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
payloads = st.dictionaries(
    st.sampled_from(["run_id", "status", "progress", "seq", "message", "step", "level", "event", "type"]),
    json_values,
)


@given(st.sampled_from(["state", "progress", "log", "STATE"]), payloads | json_values)
@settings(deadline=None)
def test_any_frame_that_the_client_hands_on_is_one_line_for_people_and_one_for_programs(
    name: str, payload: Any
) -> None:
    raw = json.dumps({"topic": "realtime:c", "event": "broadcast", "ref": None,
                      "payload": {"type": "broadcast", "event": name, "payload": payload}})  # fmt: skip
    try:
        frame = ServerMessageAdapter.validate_json(raw.encode("utf-8", "replace")).payload
    except ValidationError:
        return  # the official client logs it and goes on
    event, told = _event(frame)
    line = line_of(event, told, NOON)
    assert len(line) < 5_000
    assert len(line.splitlines()) == 1
    assert not {unicodedata.category(each) for each in line} & {"Cc", "Cs"}
    as_json = json_of(event, told)
    assert as_json.isascii()
    assert len(as_json.splitlines()) == 1
    assert json.loads(as_json, parse_constant=pytest.fail)["event"] == event


@pytest.mark.parametrize(
    "body", [None, {}, "rows", 5, [1], [None], [{}], [{"seq": "1"}], [{"seq": True}], [[]]]
)
async def test_what_is_no_rows_of_supabase_is_an_outage(body: Any) -> None:
    async with supabase(status(200, body)) as own:
        with pytest.raises(SupabaseUnavailable, match="does not answer as Supabase does"):
            await _recent(own, "c")
