"""Values of limits and times as operators write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ArgumentError
from bridge.limits.declared import LONGEST_PER, MOST_SLOTS, MOST_UNITS, Rate
from bridge.limits.values import kept, read_time, read_value, rough_time, understood, written, written_time

TIMES = st.integers(1, LONGEST_PER // timedelta(milliseconds=1)).map(lambda ms: timedelta(milliseconds=ms))


@given(TIMES)
def test_a_time_is_read_as_it_was_written(time: timedelta) -> None:
    assert read_time(written_time(time)) == time


@given(st.integers(1, MOST_SLOTS) | st.builds(Rate, st.integers(1, MOST_UNITS), TIMES))
def test_a_value_is_read_as_it_was_written_and_as_redis_keeps_it(value: int | Rate) -> None:
    assert read_value(written(value)) == value
    assert understood(kept(value)[1]) == value


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172_800)]
)
def test_a_time_is_seconds_or_numbers_with_units(text: str, seconds: float) -> None:
    assert read_time(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1y", "m", "5 m", "1m x", "nan", "inf", "1e3", "٣s", "9999d", "0.0001ms", "5m\n"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        read_time(text)


@pytest.mark.parametrize("text", ["100/m", "100/1m", "100/60s", "100/60"])
def test_a_rate_is_a_count_and_a_time(text: str) -> None:
    assert read_value(text) == Rate(100, per=timedelta(minutes=1))


@pytest.mark.parametrize("text", ["", "-1", "5.5", "five", "1_000", "100/", "/1m", "100/x", "100/1m/2", "٣"])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        read_value(text)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, None, MOST_SLOTS + 1])
def test_slots_that_cannot_work_are_refused(value: object) -> None:
    with pytest.raises(ArgumentError):
        kept(value)  # type: ignore[arg-type]


def test_no_slots_at_all_is_a_pause() -> None:
    with pytest.raises(ArgumentError, match="pause it"):
        kept(0)


def test_a_wait_is_told_in_two_units() -> None:
    assert rough_time(timedelta(days=1, hours=2, minutes=3)) == "1d2h"
    assert rough_time(timedelta(milliseconds=900)) == "0s"
