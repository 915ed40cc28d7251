"""What is filling up is told at each level once, with the minutes, and when there is room again."""

from __future__ import annotations

import logging

import pytest

from bridge.fullness import Gauge


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def gauge(clock: list[float], caplog: pytest.LogCaptureFixture) -> Gauge:
    caplog.set_level(logging.INFO)
    return Gauge("the tub", "close the tap", lambda: clock[0])


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]


def test_each_level_is_told_once_before_it_bites(gauge: Gauge, caplog: pytest.LogCaptureFixture) -> None:
    for reading in (0.1, 0.69, 0.7, 0.75, 0.89, 0.9, 0.95, 0.88, 0.99, 1.0, 1.5, 2.0, 3.0):
        gauge.note(reading)
    assert told(caplog) == [
        ("WARNING", "the tub is 70 % full"),
        ("ERROR", "the tub is 90 % full"),
        ("ERROR", "the tub is 100 % full"),
        ("ERROR", "the tub is 200 % full"),
    ]
    assert gauge.value == 3.0


def test_a_jump_past_several_levels_is_one_line(gauge: Gauge, caplog: pytest.LogCaptureFixture) -> None:
    gauge.note(1.2)
    assert told(caplog) == [("ERROR", "the tub is 120 % full")]


def test_what_stays_full_is_told_every_minute(
    gauge: Gauge, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(125):
        clock[0] = second
        gauge.note(0.8)
    assert len(caplog.records) == 3


def test_room_is_told_once_and_the_next_filling_anew(gauge: Gauge, caplog: pytest.LogCaptureFixture) -> None:
    for reading in (0.95, 0.6, 0.92, 0.2, 0.1, 0.75):
        gauge.note(reading)
    assert [line for _, line in told(caplog)] == [
        "the tub is 95 % full",
        "the tub has room again: 20 % full",
        "the tub is 75 % full",
    ]
