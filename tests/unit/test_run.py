"""The progress API of a run: what reaches the outbox, and what is refused at the call."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.appender import Appender
from bridge.current import current_run, detached_run, enter
from bridge.errors import ArgumentError, PayloadTooLarge
from bridge.events import Patch, fold
from bridge.lifecycle import Identity, completed
from bridge.outbox import Entry, OutboxUnavailable
from bridge.run import Run
from bridge.settings import OutboxSettings
from bridge.testing import MemoryOutbox
from tests.waiting import wait_until

RUN = Identity(run_id="0a1b2c3d-0000-4000-8000-000000000001", root_id="root", task="t")


class ListOutbox(MemoryOutbox):
    """An outbox in memory that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.away = False
        self.full = 0.0
        self.refused = 0

    def append(self, entries: Any) -> None:
        if self.away:
            self.refused += 1
            raise OutboxUnavailable("away")
        self.entries.extend(entries)

    def fullness(self) -> float:
        return self.full

    def told(self) -> list[Patch]:
        return [patch for _, patch in self.entries]

    def values(self) -> dict[str, Any]:
        return {name: value for patch in self.told() for name, value in patch.fields.items()}


@pytest.fixture
def outbox() -> ListOutbox:
    return ListOutbox()


@pytest.fixture
def appender(outbox: ListOutbox) -> Iterator[Appender]:
    made = Appender(outbox, OutboxSettings(flush_interval=0.005))
    yield made
    outbox.away = False
    made.close()


@pytest.fixture
def run(appender: Appender, outbox: ListOutbox) -> Run:
    return Run(RUN, 1, appender, outbox, interval=0.05)


def test_progress_derives_the_percentage(run: Run, outbox: ListOutbox) -> None:
    run.progress(1, 3, "Importing")
    run.flush()
    assert outbox.values() == {"current": 1, "total": 3, "progress": 33, "message": "Importing"}


def test_a_message_alone_keeps_the_counts(run: Run, outbox: ListOutbox) -> None:
    run.progress(1, 2)
    run.progress(message="still there")
    run.flush()
    assert outbox.values() == {"current": 1, "total": 2, "progress": 50, "message": "still there"}


def test_what_was_told_is_not_told_again(run: Run, outbox: ListOutbox) -> None:
    run.progress(1, 2, "a")
    run.flush()
    run.progress(message="b")
    run.flush()
    assert [patch.fields for patch in outbox.told()][1] == {"message": "b"}


@pytest.mark.parametrize(
    ("current", "total", "percent"),
    [(0, 10, 0), (10, 10, 100), (12, 10, 100), (0.5, 1, 0), (2.0, 4.0, 50), (5, None, None), (0, 0, None)],
)
def test_counts_of_every_kind(
    run: Run, outbox: ListOutbox, current: float, total: float | None, percent: int | None
) -> None:
    run.progress(current, total)
    run.flush()
    assert outbox.values().get("progress") == percent


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, "3", True, 2**60])
def test_a_wrong_count_is_refused_at_the_call(run: Run, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="current="):
        run.progress(wrong, 10)
    with pytest.raises(ArgumentError, match="total="):
        run.progress(1, wrong)


def test_a_total_without_a_current_is_refused(run: Run) -> None:
    with pytest.raises(ArgumentError, match="give current"):
        run.progress(total=10)


def test_ten_thousand_reports_become_a_handful_of_entries(run: Run, outbox: ListOutbox) -> None:
    for number in range(10_000):
        run.progress(number, 9_999, f"item {number}")
    wait_until(lambda: outbox.values().get("progress") == 100, "the last value is appended")
    assert len(outbox.entries) < 40
    assert outbox.values()["message"] == "item 9999"


def test_the_last_report_is_never_lost_to_a_race(run: Run, outbox: ListOutbox) -> None:
    stop = threading.Event()

    def take_all_the_time() -> None:
        while not stop.is_set():
            run.flush()

    taker = threading.Thread(target=take_all_the_time)
    taker.start()
    for number in range(20_000):
        run.progress(number, 20_000)
    stop.set()
    taker.join()
    run.flush()
    assert outbox.values()["current"] == 19_999


def test_track_counts_by_itself(run: Run, outbox: ListOutbox) -> None:
    assert list(run.track("abc", "Reading")) == ["a", "b", "c"]
    run.flush()
    assert outbox.values() == {"current": 3, "total": 3, "progress": 100, "message": "Reading"}


def test_track_goes_on_without_a_length(run: Run, outbox: ListOutbox) -> None:
    assert list(run.track(iter("ab"))) == ["a", "b"]
    run.flush()
    assert outbox.values() == {"current": 2, "total": None}


def test_states_lines_and_progress_keep_their_order(run: Run, outbox: ListOutbox) -> None:
    run.change({"status": "in_progress"})
    run.progress(1, 2)
    run.log("first")
    run.step("two")
    run.log("second", "warning", code=7)
    run.finish({"status": "completed"})
    assert [patch.status for patch in outbox.told()] == ["in_progress", "completed"]
    lines = [line for patch in outbox.told() for line in patch.logs]
    assert [(line.level, line.message, line.data) for line in lines] == [
        ("info", "first", None),
        ("warning", "second", {"code": 7}),
    ]


def test_an_oversized_message_is_shortened_on_the_bar_and_whole_in_the_log(
    run: Run, outbox: ListOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    text = "x" * 9_000
    run.progress(1, 2, text)
    run.flush()
    assert len(outbox.values()["message"]) == 500
    assert "".join(line.message for patch in outbox.told() for line in patch.logs) == text
    assert "message of 9000 characters is shortened to 500" in caplog.text


def test_an_oversized_log_is_refused_with_its_size(run: Run) -> None:
    with pytest.raises(PayloadTooLarge, match="log is 64001 bytes, at most 64000"):
        run.log("x" * 64_001)
    with pytest.raises(PayloadTooLarge, match="data is"):
        run.log("x", blob="y" * 20_000)


@pytest.mark.parametrize("data", [{"x": object()}, {"x": math.nan}])
def test_data_that_is_no_json_is_refused(run: Run, data: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="data"):
        run.log("x", **data)


def test_an_unknown_level_is_refused(run: Run) -> None:
    with pytest.raises(ArgumentError, match="is one of debug, info, warning, error"):
        run.log("x", "loud")


def test_hostile_text_is_cleaned_on_its_way(run: Run, outbox: ListOutbox) -> None:
    run.progress(1, 2, "a\x00b\x1b[2J token=S3CRET")
    run.log("pw \x00", link="https://me:S3CRET@host/")
    run.flush()
    assert outbox.values()["message"] == "ab[2J [removed]"
    assert "S3CRET" not in str(outbox.told())


@pytest.mark.parametrize("value", ["token:", "\\u0000", None, 5], ids=repr)
def test_data_that_looks_like_a_secret_does_not_break_its_line(
    run: Run, outbox: ListOutbox, value: Any
) -> None:
    run.log("x", password=value, note=value)
    run.flush()
    [line] = [line for patch in outbox.told() for line in patch.logs]
    assert line.data == {"password": value if not isinstance(value, str) else "[removed]", "note": value}


@pytest.mark.parametrize("result", [{"a": "token:"}, {"token": None}, {"a": "\\u0000"}], ids=repr)
def test_a_public_result_of_any_text_ends_the_run(result: Any) -> None:
    assert completed(result, show_result=True)["result"] == result


def test_a_public_result_shows_no_secrets_and_no_escape_codes() -> None:
    result = completed({"token": "S3CRET", "a": ["\x1b[2J"]}, show_result=True)["result"]
    assert result == {"token": "[removed]", "a": ["[2J"]}


def test_a_result_nested_without_end_is_left_out() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert completed(nested, show_result=True)["result"] == {"omitted": "the result is no JSON"}


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "",
        5,
        "https://" + "x" * 3_000,
        "//evil.example/x",
        "/\\evil.example",
        "/a\x1b[2J",
    ],
)
def test_a_result_link_must_be_one(run: Run, url: Any) -> None:
    with pytest.raises(ArgumentError, match="result_url"):
        run.result_url(url)


def test_outside_of_a_worker_the_calls_check_and_do_nothing() -> None:
    assert current_run() is None
    run = detached_run()
    assert list(run.track([1, 2])) == [1, 2]
    run.step("x")
    assert run.last_checkpoint is None
    with pytest.raises(ArgumentError):
        run.progress(-1, 2)


def test_the_current_run_is_one_of_its_thread(run: Run) -> None:
    seen: list[Run | None] = []
    enter(run)
    try:
        other = threading.Thread(target=lambda: seen.append(current_run()))
        other.start()
        other.join()
        assert current_run() is run
    finally:
        enter(None)
    assert seen == [None]


def test_what_a_helper_thread_tells_after_the_end_is_appended_all_the_same(
    run: Run, outbox: ListOutbox
) -> None:
    run.change({"status": "in_progress"})
    run.finish({"status": "completed"})
    assert run.is_over
    run.log("one more")
    run.flush()
    run.progress(1, 2)
    wait_until(lambda: outbox.values().get("progress") == 50, "the last of it is appended")
    assert [line.message for patch in outbox.told() for line in patch.logs] == ["one more"]


# The appender, when the outbox is away or full


def test_tasks_go_on_while_the_outbox_is_away_and_nothing_is_lost(run: Run, outbox: ListOutbox) -> None:
    outbox.away = True
    run.change({"status": "in_progress"})
    for number in range(100):
        run.progress(number, 100)
    run.log("line")
    run.finish({"status": "completed"})
    outbox.away = False
    wait_until(lambda: len(outbox.entries) > 0, "the outbox got what was kept")
    patches = fold(outbox.told())
    assert [patch.status for patch in patches] == ["in_progress", "completed"]
    assert [line.message for patch in patches for line in patch.logs] == ["line"]


def test_an_outage_is_tried_once_a_second_not_at_every_report(run: Run, outbox: ListOutbox) -> None:
    outbox.away = True
    for _ in range(200):
        run.finish({"step": "x"})
    assert outbox.refused < 5


def test_a_full_outbox_sheds_progress_and_keeps_states(run: Run, outbox: ListOutbox) -> None:
    outbox.full = 1.0
    run.progress(1, 2)
    run.flush()
    assert outbox.entries == []
    run.progress(2, 2)
    run.finish({"status": "completed"})
    assert [patch.status for patch in outbox.told()] == ["completed"]


def test_closing_appends_what_is_pending(run: Run, appender: Appender, outbox: ListOutbox) -> None:
    run.flush()
    run.progress(1, 2)
    appender.close()
    assert outbox.values()["progress"] == 50
