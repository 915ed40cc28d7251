"""Rates, and a clock that is set back, one by one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.integration.limits.desk import LEASE, MINUTE, Desk
from tests.integration.limits.virtual import set_clock

LEASE_MS = int(LEASE.total_seconds() * 1000)


def test_a_run_of_many_units_is_not_starved_by_runs_of_few(desk: Desk) -> None:
    desk.declare(rate_r=f"5:{MINUTE}")
    for _ in range(5):
        assert desk.ask("task|light| rate|r|", 1).word == "run"
        desk.later(1_000)
    heavy = desk.ask("task|heavy| rate|r|", 5)
    assert heavy.word == "waiting"
    light = [desk.ask("task|light| rate|r|", 1).word for _ in range(20)]
    assert light == ["waiting"] * 20
    for _ in range(56):
        desk.later(1_000)
    assert not desk.granted(), "part of the window is free, and not enough for the first in line"
    assert desk.ask("task|another| rate|r|", 1).word == "waiting"
    for _ in range(6):
        desk.later(1_000)
    assert desk.granted() == ["run6:1:0"]


def test_a_rate_set_below_the_units_of_a_waiting_run_lets_it_through_alone(desk: Desk) -> None:
    desk.declare(rate_r=f"5:{MINUTE}")
    desk.ask("task|a| rate|r|", 3)
    assert desk.ask("task|a| rate|r|", 4).word == "waiting"
    desk.redis.hset(f"{desk.scripts.root}overrides", "rate|r", f"2:{MINUTE}")
    desk.scripts.wake(["rate|r|"])
    assert not desk.granted()
    swept = desk.later(59_000)
    assert not desk.granted()
    assert swept.next_in <= timedelta(milliseconds=1_060)
    desk.later(int(swept.next_in.total_seconds() * 1000))
    assert desk.granted() == ["run2:1:0"]


def test_a_clock_that_is_set_back_ends_no_start_early(desk: Desk) -> None:
    desk.declare(grace=True, slots_a="1")
    desk.now -= MINUTE
    set_clock(desk.redis, desk.now)
    desk.declare(grace=True, slots_a="1")
    desk.later(1)
    assert desk.ask("task|a| slots|a|").gate == "start||"
    desk.later(LEASE_MS)
    assert desk.granted() == ["run1:1:0"]


@pytest.mark.parametrize("back", [0, 1, 15_999, MINUTE, 3_600_000])
@pytest.mark.parametrize("sweeps_before", [0, 1, 2])
def test_lanes_that_are_left_at_a_start_which_is_over_go_on_and_then_sweeps_pause(
    desk: Desk, sweeps_before: int, back: int
) -> None:
    desk.declare(grace=True, slots_user="1", slots_all="1000")
    for user in range(300):
        assert desk.ask(f"task|t| slots|user|{user} slots|all|").gate == "start||"
    desk.now += LEASE_MS
    set_clock(desk.redis, desk.now)
    for _ in range(sweeps_before):  # each moves 64 lanes
        desk.sweep()
    swept = desk.later(-back)
    if not sweeps_before:  # then it was not known yet that the start was over
        swept = desk.later(LEASE_MS)
    for _ in range(300 // 64):
        if desk.at():
            assert swept.next_in == timedelta(0)
            swept = desk.sweep()
    assert not desk.at()
    assert swept.next_in > timedelta(0)
    assert not desk.redis.exists(f"{desk.scripts.root}due")


def test_a_clock_that_is_set_back_keeps_no_dead_worker_in_the_seat_of_the_pacer(desk: Desk) -> None:
    assert desk.sweep("alive").is_pacer
    desk.redis.set(f"{desk.scripts.root}pacer", "dead", px=3_600_000)  # what is left of 3 s after such a step
    assert not desk.sweep("alive").is_pacer
    assert desk.redis.pttl(f"{desk.scripts.root}pacer") <= 3_000


@pytest.mark.parametrize("back", [1, 59, 61, MINUTE, 3_600_000])
def test_a_clock_that_is_set_back_delays_a_rate_by_one_window_at_most(desk: Desk, back: int) -> None:
    desk.declare(rate_r=f"2:{MINUTE}")
    for _ in range(3):
        desk.ask("task|a| rate|r|", 1)
    desk.sweep()
    desk.later(-back)
    assert not desk.granted(), "the window is as full as it was"
    desk.later(MINUTE + 120)
    assert desk.granted() == ["run3:1:0"]


def test_a_clock_that_is_set_back_frees_a_lost_grant_and_ends_a_pause_in_time(desk: Desk) -> None:
    desk.declare(slots_a="1", slots_b="1")
    desk.end(desk.ask("task|a| slots|a|").holder)
    holder = desk.ask("task|a| slots|a|").holder
    desk.ask("task|a| slots|a|")
    desk.ask("task|a| slots|a|")
    desk.end(holder)
    assert desk.granted() == ["run3:1:0"]
    desk.scripts.pause("limit|b|", timedelta(seconds=30))
    desk.ask("task|b| slots|b|")
    desk.sweep()
    desk.later(-3_600_000)
    desk.later(10_000)
    assert desk.granted() == ["run3:1:0"], "it never arrived, and is sent once more"
    desk.take_up("run3:1:0", "task|a| slots|a|")
    desk.later(20_000)
    assert "run5:1:0" in desk.granted()
