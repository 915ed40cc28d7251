"""How a followed channel looks in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

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
