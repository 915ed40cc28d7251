"""What the commands behind limits promise, one by one, where a random history seldom comes."""

from __future__ import annotations

from datetime import timedelta

from bridge.limits.answers import Ask, Parcel, Unacked
from bridge.limits.scripts import LASTING_KEYS
from tests.integration.limits.desk import LEASE, MINUTE, Desk
from tests.integration.limits.dump import dumper
from tests.integration.limits.virtual import set_clock


def test_five_thousand_lanes_move_to_another_gate_a_few_at_a_time(desk: Desk) -> None:
    desk.declare(grace=True, slots_user="1", slots_all="7")
    for user in range(5_000):
        assert desk.ask(f"task|t| slots|user|{user} slots|all|").gate == "start||"
    desk.now += int(LEASE.total_seconds() * 1000)
    set_clock(desk.redis, desk.now)
    sweeps = 0
    while desk.at()["start||"]:
        before = desk.at()["start||"]
        swept = desk.sweep()
        sweeps += 1
        assert 0 < before - desk.at()["start||"] <= 64
        assert swept.next_in == timedelta(0) or not desk.at()["start||"]
    assert sweeps <= 5_000 // 64 + 1
    assert desk.granted() == [f"run{number}:1:0" for number in range(1, 8)]
    assert desk.at() == {"slots|all|": 4_993}


def test_lanes_of_one_rank_take_turns_whatever_their_lengths(desk: Desk) -> None:
    desk.declare(slots_all="1", slots_user="1")
    lanes = {user: f"task|t| slots|user|{user} slots|all|" for user in "abcd"}
    holder = desk.ask("task|other| slots|all|").holder
    owners = {}
    for user, runs in (("a", 9), ("b", 5), ("c", 5), ("d", 5)):
        for _ in range(runs):
            desk.ask(lanes[user])
            owners[f"run{desk.sent}:1:0"] = user
    turns = ""
    for _ in range(24):
        desk.end(holder)
        (member,) = desk.granted()
        turns += owners[member]
        holder = desk.take_up(member, lanes[owners[member]])
    assert turns == "abcd" * 5 + "aaaa"


def test_a_value_below_the_current_use_kills_nothing_and_grants_nothing_until_there_is_room(
    desk: Desk,
) -> None:
    desk.declare(slots_a="4")
    holders = [desk.ask("task|a| slots|a|").holder for _ in range(4)]
    desk.ask("task|a| slots|a|")
    desk.redis.hset(f"{desk.scripts.root}overrides", "slots|a", "2")
    desk.scripts.wake(["slots|a|"])
    for holder in holders[:2]:
        desk.end(holder)
        assert not desk.granted()
    assert desk.redis.zcard(f"{desk.scripts.root}slots:slots|a|") == 2
    desk.end(holders[2])
    assert desk.granted() == ["run5:1:0"]


def test_runs_of_a_dead_worker_go_before_younger_ones(desk: Desk) -> None:
    desk.declare(slots_a="2")
    for _ in range(2):
        desk.ask("task|a| slots|a|", worker="dies")
    for _ in range(2):
        desk.ask("task|a| slots|a|")
    parcel = Parcel(b"second copy", "queue", "{}")
    assert desk.scripts.spare("run1:1:0", parcel)
    assert desk.scripts.spare("run2:1:0", parcel)
    desk.redis.zadd(f"{desk.scripts.root}workers", {"dies": 0})
    desk.sweep()
    assert desk.granted() == ["second copy", "second copy"]


def test_a_second_copy_is_kept_of_a_run_that_executes_and_of_no_other(desk: Desk) -> None:
    desk.declare(slots_a="1")
    holder = desk.ask("task|a| slots|a|").holder
    desk.ask("task|a| slots|a|")
    parcel = Parcel(b"second copy", "queue", "{}", unacked=Unacked("unacked", "index", "run1:1:0"))
    assert not desk.scripts.spare("run2:1:0", parcel)
    assert desk.redis.hexists("unacked", "run1:1:0")
    assert desk.scripts.spare("run1:1:0", parcel)
    assert not desk.redis.hexists("unacked", "run1:1:0")
    desk.end(holder)
    assert not desk.scripts.spare("run1:1:0", parcel)
    assert desk.granted() == ["run2:1:0"]


def test_who_dies_with_a_second_copy_kept_is_reported_as_the_attempt_that_it_was(desk: Desk) -> None:
    desk.declare()
    ask = Ask("run:1:0", "dies", "task|a|", (), 0, meta='{"n":1}')
    for attempt in (1, 2, 3):
        assert desk.scripts.admit(ask).word == "run"
        desk.redis.zadd(f"{desk.scripts.root}workers", {"dies": 0})
        if attempt == 2:
            assert desk.scripts.spare(ask.member, Parcel(b"second copy", "queue", ask.meta))
        assert desk.sweep().died == (f'{{"n":{attempt}}}',)


def test_granted_runs_go_before_whatever_else_is_in_their_queue(desk: Desk) -> None:
    desk.declare(slots_a="1")
    holder = desk.ask("task|a| slots|a|").holder
    desk.ask("task|a| slots|a|")
    desk.redis.lpush("queue", "sent before")
    desk.end(holder)
    assert desk.redis.rpop("queue") == b"run2:1:0"


def test_a_value_that_a_new_version_declares_lets_waiting_runs_through(desk: Desk) -> None:
    desk.declare(slots_a="1")
    for _ in range(3):
        desk.ask("task|a| slots|a|")
    desk.declare(slots_a="3")
    assert desk.sweep().next_in > timedelta(0)
    assert desk.granted() == ["run2:1:0", "run3:1:0"]


def test_nobody_overtakes_those_who_wait_at_a_gate_that_has_room_again(desk: Desk) -> None:
    desk.declare(slots_a="1")
    desk.ask("task|a| slots|a|")
    desk.ask("task|a| slots|a|")
    desk.declare(slots_a="2")
    assert desk.ask("task|b| slots|a|").word == "waiting"
    assert desk.granted() == ["run2:1:0"]


def test_a_holder_from_before_redis_was_emptied_is_never_named_again(desk: Desk) -> None:
    desk.declare(slots_a="1")
    before = desk.ask("task|a| slots|a|", member="run1:1:0").holder
    desk.redis.delete(*desk.redis.keys(f"{desk.scripts.root}*"))
    desk.declare(slots_a="1")
    after = desk.ask("task|a| slots|a|", member="run1:1:0").holder
    assert before != after
    desk.end(before)
    assert desk.redis.zrange(f"{desk.scripts.root}slots:slots|a|", 0, -1) == [after.encode()]


def test_a_message_parked_before_is_dropped_unless_redis_was_emptied_since(desk: Desk) -> None:
    desk.declare(slots_a="1")
    late = Ask("late:1:0", "w", "task|a| slots|a|", (1,), parked_under=desk.scripts.epoch())
    assert desk.scripts.admit(late).word == "duplicate"
    desk.redis.delete(*desk.redis.keys(f"{desk.scripts.root}*"))
    desk.declare(slots_a="1")
    assert desk.scripts.admit(late).word == "run"


def test_a_run_that_starts_while_it_is_parked_leaves_its_message_with_the_broker(desk: Desk) -> None:
    desk.declare(rate_r=f"3:{MINUTE}")
    desk.ask("task|a| rate|r|", 2)
    assert desk.ask("task|a| rate|r|", 2, priority=5).word == "waiting"
    assert desk.redis.hkeys("unacked") == [b"run1:1:0"]
    assert desk.ask("task|a| rate|r|", 1, priority=1).word == "run"
    assert set(desk.redis.hkeys("unacked")) == {b"run1:1:0", b"run3:1:0"}


def test_a_worker_that_dies_before_its_first_renewal_loses_its_slots(desk: Desk) -> None:
    desk.declare(slots_a="1")
    desk.ask("task|a| slots|a|", worker="unknown")
    desk.ask("task|a| slots|a|")
    for _ in range(3):
        desk.later(int(LEASE.total_seconds() * 500))
    assert desk.granted() == ["run2:1:0"]


def test_once_all_has_ended_only_lasting_keys_are_left_and_the_rest_has_a_time_to_live(desk: Desk) -> None:
    desk.declare(grace=True, slots_a="1", rate_r=f"2:{MINUTE}", slots_b="1")
    lanes = ("task|a| slots|a| rate|r|", "task|b| slots|b|x slots|a|", "task|c| rate|r|")
    for lane in lanes * 4:
        desk.ask(lane)
    desk.scripts.pause("limit|b|x", timedelta(seconds=20))
    desk.later(int(LEASE.total_seconds() * 1000))
    waiting = True
    while waiting:
        for member in desk.granted():
            lane = desk.redis.hget(f"{desk.scripts.root}run:{member}", "lane")
            desk.take_up(member, lane.decode())
        for holder in list(desk.lanes):
            desk.end(holder)
        desk.redis.zadd(f"{desk.scripts.root}workers", {"w": desk.now + 8_000})
        desk.later(5_000)
        waiting = bool(desk.at() or desk.redis.llen("queue"))
    dump = dumper(desk.redis)()
    lasting = {f"{desk.scripts.root}{name}" for name in LASTING_KEYS}
    left = {key for key, ttl in dump.ttl.items() if ttl < 0} - {"unacked", "clock"}
    assert left <= lasting, f"nothing would ever remove {left - lasting}"
    day = 24 * 3600 * 1000
    assert all(ttl <= day for key, ttl in dump.ttl.items()), str(dump.ttl)
