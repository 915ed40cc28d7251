"""Which broadcasts follow from what was written."""

from __future__ import annotations

import json
from typing import Any

from bridge.events import Patch, run_uuid
from bridge.messages import PAYLOAD_LIMIT, Message, current_messages, encoded, messages_for
from bridge.publisher.waiting import Waiting
from bridge.rows import Announcement, Mirrored
from bridge.testing import MemoryRows


def announcement(
    run_id: str = "r", seq: int = 1, channel: str | None = "c", status: str = "in_progress", **values: Any
) -> Announcement:
    snapshot = {"run_id": run_id, "task": "t", "status": status, "seq": seq, "at": "now", **values}
    return Announcement(run_id, channel, snapshot)


def applied(current: Announcement, *changed: str, **values: Any) -> Mirrored:
    return Mirrored(
        current.run_id,
        "applied",
        current,
        state_changed="state" in changed,
        progress_changed="progress" in changed,
        **values,
    )


def told(messages: list[Message]) -> list[tuple[str, str, int]]:
    return [(message.run_id, message.event, message.number) for message in messages]


def test_a_state_change_is_a_state_message_with_the_whole_snapshot() -> None:
    current = announcement(seq=4, message="Importing")
    [message] = messages_for([applied(current, "state")])
    assert (message.topic, message.event, message.final) == ("c", "state", False)
    assert json.loads(message.payload) == current.snapshot


def test_progress_follows_the_state_it_came_with() -> None:
    assert told(messages_for([applied(announcement(), "progress", "state")])) == [
        ("r", "state", 1),
        ("r", "progress", 1),
    ]


async def test_places_in_a_line_cost_one_message_a_run_while_messages_are_scarce() -> None:
    rows, scarce = MemoryRows(), Waiting()
    ids = [run_uuid(f"run-{number}") for number in range(20)]
    named = {"channel": "c", "status": "waiting", "wait_reason": "5 of 5 run"}
    patches = [Patch(run, 1, 0, {**named, "queue_position": 99}, version=1) for run in ids]
    patches += [
        Patch(run, 1, 0, {"queue_position": place}, existing=True, version=100 - place)
        for place in range(98, 0, -1)
        for run in ids
    ]
    patches.append(Patch(ids[-1], 1, 0, {"status": "cancelled"}, version=200))
    for patch in patches:  # each in a pass of its own, so that folding has no part in it
        for message in messages_for(await rows.mirror([patch])):
            scarce.add(message, partition=0)
        scarce.settle(ids)
    waiting = scarce.peek(9_999, 10**9)
    assert [message.final for message in waiting] == [True] * 2 + [False] * 38
    shown = [json.loads(message.payload) for message in waiting if message.event == "progress"]
    assert [each["queue_position"] for each in shown if each["status"] == "waiting"] == [1] * 19
    scarce.remove([message for message in waiting if message.event == "state"])
    assert "state" not in {message.event for message in scarce.peek(9_999, 10**9)}


def test_log_lines_come_before_the_state_that_ends_the_run() -> None:
    lines = [{"line": 7, "level": "info", "message": "done", "data": None, "at": "then"}]
    messages = messages_for([applied(announcement(status="failed", seq=3), "state", "progress", logs=lines)])
    assert told(messages) == [("r", "log", 7), ("r", "state", 3), ("r", "progress", 3)]
    assert json.loads(messages[0].payload) == {
        "run_id": "r",
        "task": "t",
        "status": "failed",
        "seq": 3,
        **lines[0],
    }
    assert [message.final for message in messages[1:]] == [True, True]


def test_a_change_nobody_can_see_is_not_told() -> None:
    assert messages_for([applied(announcement())]) == []


def test_a_run_without_a_channel_is_not_told_but_its_parent_is() -> None:
    result = applied(announcement(channel=None), "state", parents=[announcement("p", 9)])
    assert told(messages_for([result])) == [("p", "progress", 9)]


def test_refused_patches_are_not_told() -> None:
    assert messages_for([Mirrored("r", outcome) for outcome in ("stale", "final", "unknown")]) == []


def test_a_redelivery_repeats_the_present_state_once() -> None:
    again = Mirrored("r", "duplicate", announcement(seq=5), parents=[announcement("p", 2)])
    assert told(messages_for([again, again])) == [
        ("r", "state", 5),
        ("r", "progress", 5),
        ("p", "state", 2),
        ("p", "progress", 2),
    ]


def test_a_redelivery_is_not_repeated_beside_something_newer() -> None:
    again = Mirrored("r", "duplicate", announcement(seq=5))
    assert told(messages_for([again, applied(announcement(seq=6), "progress")])) == [("r", "progress", 6)]


def test_catching_up_tells_state_and_progress() -> None:
    assert told(current_messages(announcement(seq=3))) == [("r", "state", 3), ("r", "progress", 3)]
    assert current_messages(announcement(channel=None)) == []


def test_a_result_too_large_for_a_message_is_left_to_the_row() -> None:
    payload = json.loads(encoded({"run_id": "r", "result": "x" * PAYLOAD_LIMIT, "message": "m"}))
    assert payload == {"run_id": "r", "result": None, "result_omitted": True, "message": "m"}


def test_every_payload_fits_whatever_is_in_it() -> None:
    long = "é" * PAYLOAD_LIMIT
    raw = encoded({"run_id": "r", "result": [1], "data": {"a": long}, "error_message": long, "message": long})
    assert len(raw) <= PAYLOAD_LIMIT
    assert json.loads(raw)["message_omitted"] is True


def test_hostile_text_stays_json() -> None:
    text = '"}\n\u2028</script>\x00\ud800'
    assert json.loads(encoded({"message": text}))["message"] == text.replace("\ud800", "?")
