"""How a followed channel looks in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.watch import bar_of, line_of

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
