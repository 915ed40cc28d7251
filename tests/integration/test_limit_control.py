"""Operators' view of limits and their changes, on a real Redis; no worker is there to help."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery, _state

from bridge.errors import ArgumentError
from bridge.extension import Bridge
from bridge.limits import Limit, Rate
from bridge.limits.answers import Answer, Ask, Parcel
from bridge.limits.control import LimitControl, LimitsUnavailable, assume_nothing_runs
from bridge.limits.gates import passage_of
from bridge.limits.scripts import LimitScripts
from bridge.limits.survey import KeyState, LimitState
from bridge.settings import BridgeSettings, LimitSettings, OutboxSettings
from bridge.testing import MemoryOutbox
from tests.waiting import wait_until

MINUTE = timedelta(minutes=1)
LEASE = timedelta(seconds=30)


def _of_all() -> None:
    """What a task without arguments does."""


def _of_account(account: Any) -> None:
    """What a task for one account does."""


class Shop:
    """An app, its limits in Redis, and runs that ask to be let in."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.redis = redis.Redis.from_url(settings.outbox.redis_url)
        self.scripts = LimitScripts(self.redis, settings.outbox.prefix)
        self.app = Celery("shop", set_as_current=False)
        self.bridge = Bridge(self.app, settings, outbox=MemoryOutbox())
        task: Any = self.app.task
        self.pair = task(name="shop.pair", concurrency=2)(_of_all)
        self.each = task(name="shop.each", concurrency=Limit(1, key="account"))(_of_account)
        both = [Limit(1, key="account", name="account"), Limit(3, name="all")]
        self.both = task(name="shop.both", concurrency=both)(_of_account)
        self.paced = task(name="shop.paced", rate=Rate(2, per=MINUTE, name="provider"))(_of_all)
        rate = Rate(2, per=MINUTE, key="account", name="accounts")
        self.paced_each = task(name="shop.paced_each", rate=rate)(_of_account)
        self.free = task(name="shop.free")(_of_all)
        self.queue = f"{settings.outbox.prefix}-queue"
        self._ids = itertools.count()
        self.declare()

    @property
    def limits(self) -> LimitControl:
        return self.bridge.limits

    def listed(self) -> list[LimitState]:
        """The limits of its own tasks; Celery gives an app those of others that the process has, too."""
        return [one for one in self.limits.survey() if not one.name.startswith("tasks.")]

    @property
    def paused(self) -> set[str]:
        return {target.decode() for target in self.redis.hkeys(f"{self.scripts.root}paused")}

    def declare(self) -> None:
        self.scripts.declare(self.bridge.declared_values(), LEASE, LEASE)
        self.redis.zadd(f"{self.scripts.root}workers", {"w": 2**53})

    def ask(self, task: Any, times: int = 1, queue: str | None = None, **arguments: Any) -> list[Answer]:
        return [self._ask(task, self.queue if queue is None else queue, arguments) for _ in range(times)]

    def _ask(self, task: Any, queue: str, arguments: Any) -> Answer:
        passage = passage_of(self.bridge.declaration(task), arguments)
        member = f"run-{next(self._ids)}:1:0"
        ask = Ask(member, "w", passage.lane, passage.units)
        return self.scripts.admit(ask, Parcel(member.encode(), queue, "{}"))

    def leave(self, answer: Answer, task: Any, **arguments: Any) -> None:
        lane = passage_of(self.bridge.declaration(task), arguments).lane
        self.scripts.release("w", answer.holder, lane)

    def granted(self) -> int:
        """How many runs that waited are on their way to a worker."""
        return int(self.redis.llen(self.queue))  # type: ignore[arg-type]

    def state(self, name: str, kind: str = "slots", keys: int = 5) -> LimitState:
        return next(one for one in self.limits.survey(keys) if (one.name, one.kind) == (name, kind))

    def key(self, name: str, key: str, kind: str = "slots") -> KeyState:
        return next(one for one in self.state(name, kind).keys if one.key == key)


@pytest.fixture
def shop(settings: BridgeSettings) -> Iterator[Shop]:
    before = set(_state._on_app_finalizers)
    opened = Shop(settings)
    yield opened
    opened.bridge.close()
    opened.redis.close()
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)


# Looking


def test_every_limit_is_listed_with_what_is_in_force_and_in_use(shop: Shop) -> None:
    shop.ask(shop.pair, 5)
    shop.ask(shop.paced, 3)
    listed = [(one.name, one.kind, one.in_force, one.used, one.waiting) for one in shop.listed()]
    assert listed == [
        ("account", "slots", 1, 0, 0),
        ("accounts", "rate", Rate(2, per=MINUTE), None, 0),
        ("all", "slots", 3, 0, 0),
        ("provider", "rate", Rate(2, per=MINUTE), 2, 1),
        ("shop.each:account", "slots", 1, 0, 0),
        ("shop.pair", "slots", 2, 2, 3),
    ]


def test_a_run_that_waits_is_counted_where_it_is_held_back_and_there_only(shop: Shop) -> None:
    for account in ("a", "a", "b", "c", "d"):
        shop.ask(shop.both, account=account)
    waiting = {one.name: one.waiting for one in shop.limits.survey() if one.waiting}
    assert waiting == {"account": 1, "all": 1}
    assert (shop.state("account").used, shop.state("all").used) == (3, 3)


def test_the_fullest_keys_are_told_and_the_rest_counted(shop: Shop) -> None:
    for number in range(8):
        shop.ask(shop.each, number + 1, account=f"user-{number}")
    state = shop.state("shop.each:account", keys=2)
    assert [(key.key, key.used, key.waiting) for key in state.keys] == [("user-7", 1, 7), ("user-6", 1, 6)]
    assert (state.used, state.waiting, state.more_keys, state.is_split) == (8, 28, 6, True)


def test_the_oldest_wait_is_found_behind_runs_of_better_priority(shop: Shop) -> None:
    shop.ask(shop.pair, 2)
    lane = passage_of(shop.bridge.declaration(shop.pair), {}).lane
    root = shop.scripts.root
    for priority, name in ((0, "first"), (5, "second"), (9, "third")):
        shop.scripts.admit(Ask(f"{name}:1:0", "w", lane, (1,), priority), Parcel(b"x", shop.queue, "{}"))
    seconds = int(shop.redis.time()[0])  # type: ignore[index]
    shop.redis.hset(f"{root}run:second:1:0", "since", (seconds - 3600) * 1000)
    oldest = shop.state("shop.pair").oldest_wait
    assert oldest is not None
    assert timedelta(hours=1) <= oldest < timedelta(hours=1, minutes=1)
    assert shop.state("all").oldest_wait is None


def test_slots_of_runs_that_are_on_their_way_to_a_worker_are_in_use(shop: Shop) -> None:
    first, _ = shop.ask(shop.each, 2, account="a")
    shop.leave(first, shop.each, account="a")
    assert shop.granted() == 1
    assert (shop.state("shop.each:account").used, shop.key("shop.each:account", "a").used) == (1, 1)


def test_units_that_left_the_window_are_in_use_no_more(shop: Shop) -> None:
    shop.limits.set("provider", Rate(2, per=timedelta(seconds=2)))
    shop.ask(shop.paced)
    first = clock(shop.redis)
    wait_until(lambda: clock(shop.redis) > first + 1, "half of the window is over")
    shop.ask(shop.paced)
    assert shop.state("provider", "rate").used == 2
    wait_until(lambda: shop.state("provider", "rate").used == 1, "the first has left the window", timeout=5)


def clock(client: redis.Redis) -> float:
    seconds, micros = client.time()  # type: ignore[misc]
    return seconds + micros / 1e6


def test_thousands_of_keys_are_read_in_pages_and_no_key_space_is_searched(shop: Shop) -> None:
    for number in range(2_000):
        shop.ask(shop.each, 2, account=number)
    before, pages = calls(shop.redis, "keys", "scan"), calls(shop.redis, "hscan")
    state = shop.state("shop.each:account")
    assert (state.waiting, state.used, state.more_keys) == (2_000, 2_000, 1_995)
    assert calls(shop.redis, "hscan") - pages >= 5
    assert calls(shop.redis, "keys", "scan") == before


def calls(client: redis.Redis, *commands: str) -> int:
    stats: Any = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in commands)


def test_a_limit_that_no_code_declares_any_more_is_listed_while_runs_wait_for_it(shop: Shop) -> None:
    shop.scripts.admit(Ask("x:1:0", "w", "task|gone| slots|gone|", (1,)), Parcel(b"x", shop.queue, "{}"))
    state = shop.state("gone")
    assert (state.declared, state.in_force, state.waiting) == (None, None, 1)


# Changing values


def test_a_value_that_is_set_goes_over_the_declared_one_until_it_is_reset(shop: Shop) -> None:
    assert shop.limits.set("shop.pair", 7) == 2
    shop.declare()  # a worker starts
    assert (shop.state("shop.pair").declared, shop.state("shop.pair").in_force) == (2, 7)
    assert shop.limits.set("shop.pair", "8") == 7
    assert shop.limits.reset("shop.pair") is True
    assert shop.limits.reset("shop.pair") is False
    assert shop.state("shop.pair").in_force == 2


def test_raising_lets_runs_go_at_once_as_many_as_there_are_slots(shop: Shop) -> None:
    shop.ask(shop.pair, 502)
    shop.limits.set("shop.pair", 402)
    assert shop.granted() == 400


def test_raising_lets_runs_of_every_key_go_at_once(shop: Shop) -> None:
    for number in range(300):
        shop.ask(shop.each, 3, account=number)
    shop.limits.set("shop.each:account", 2)
    assert shop.granted() == 300


def test_raising_a_rate_lets_runs_go_at_once(shop: Shop) -> None:
    shop.ask(shop.paced, 5)
    shop.limits.set("provider", "4/m")
    assert shop.granted() == 2


def test_resetting_to_a_larger_value_lets_runs_go_at_once(shop: Shop) -> None:
    shop.limits.set("shop.pair", 1)
    shop.ask(shop.pair, 3)
    shop.limits.reset("shop.pair")
    assert shop.granted() == 1


def test_runs_of_another_broker_are_left_to_the_workers_to_publish(shop: Shop) -> None:
    shop.ask(shop.pair, 4, queue="")
    shop.limits.set("shop.pair", 4)
    assert shop.scripts.sweep("w", LEASE).outgoing == 2


def test_lowering_below_what_is_in_use_ends_nothing_and_lets_nothing_in(shop: Shop) -> None:
    shop.limits.set("shop.pair", 4)
    running = shop.ask(shop.pair, 4)
    shop.ask(shop.pair, 1)
    shop.limits.set("shop.pair", 2)
    state = shop.state("shop.pair")
    assert (state.used, state.in_force, state.waiting) == (4, 2, 1)
    for answer in running[:2]:
        shop.leave(answer, shop.pair)
    assert shop.granted() == 0
    shop.leave(running[2], shop.pair)
    assert shop.granted() == 1


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("shop.pair", 0, "pause it"),
        ("shop.pair", -1, "at least 1"),
        ("shop.pair", True, "give slots"),
        ("shop.pair", "five", "slots such as 5"),
        ("shop.pair", Rate(5, per=MINUTE), "counts slots"),
        ("provider", 5, "is a rate"),
        ("providers", "5/m", "did you mean `provider`"),
        ("shop.each", 5, "did you mean `shop.each:account`"),
        ("zzz", 5, "known are account, accounts, all"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_the_remedy(
    name: str, value: Any, remedy: str, shop: Shop
) -> None:
    before = shop.limits.survey()
    with pytest.raises(ArgumentError, match=remedy):
        shop.limits.set(name, value)
    assert shop.limits.survey() == before


# Pausing


def test_a_paused_task_starts_nothing_until_it_is_resumed(shop: Shop) -> None:
    assert shop.limits.pause("shop.pair") is True
    assert shop.limits.pause("shop.pair") is False
    assert shop.ask(shop.pair)[0].word == "waiting"
    state = shop.state("shop.pair", "task")
    assert (state.paused, state.resumes_in, state.waiting) == (True, None, 1)
    assert shop.limits.resume("shop.pair") is True
    assert shop.limits.resume("shop.pair") is False
    assert shop.granted() == 1


def test_a_task_without_limits_can_be_paused(shop: Shop) -> None:
    shop.limits.pause("shop.free")
    assert shop.ask(shop.free)[0].word == "waiting"
    assert shop.state("shop.free", "task").waiting == 1
    shop.limits.resume("shop.free")
    assert shop.granted() == 1


def test_a_paused_limit_holds_back_all_its_keys_and_all_of_them_go_on(shop: Shop) -> None:
    shop.limits.pause("shop.each:account")
    for number in range(200):
        shop.ask(shop.each, 1, account=number)
    state = shop.state("shop.each:account")
    assert (state.paused, state.waiting, state.used) == (True, 200, 0)
    shop.limits.resume("shop.each:account")
    assert shop.granted() == 200


def test_one_key_is_paused_and_the_others_go_on(shop: Shop) -> None:
    account = UUID(int=7)
    shop.limits.pause("shop.each:account", key=account)
    assert [shop.ask(shop.each, account=each)[0].word for each in (account, "b")] == ["waiting", "run"]
    assert shop.key("shop.each:account", str(account)).paused
    assert shop.state("shop.each:account").paused is False
    shop.limits.resume("shop.each:account", key=str(account))
    assert shop.granted() == 1


KEYS = {
    "empty": "", "number": 7, "nothing": None, "pair": ("a", 1), "marks": "a b|c,d%", "escape": "\x1b[31m",
    "long": "ü" * 300, "nearly too long": "x" * 119 + "~", "surrogate": "\ud800",
}  # fmt: skip


@pytest.mark.parametrize("account", KEYS.values(), ids=KEYS)
def test_a_key_is_paused_by_what_the_list_shows_of_it(account: Any, shop: Shop) -> None:
    shop.ask(shop.each, 2, account=account)
    shown = shop.state("shop.each:account").keys[0].key
    assert shop.limits.pause("shop.each:account", key=shown) is True
    assert shop.state("shop.each:account").keys[0].paused
    assert shop.limits.resume("shop.each:account", key=account) is True


def test_a_key_that_is_paused_is_listed_while_nothing_runs(shop: Shop) -> None:
    shop.limits.pause("accounts", MINUTE, key="a")
    key = shop.key("accounts", "a", "rate")
    assert (key.paused, key.waiting, key.used) == (True, 0, 0)
    assert key.resumes_in is not None
    assert MINUTE / 2 < key.resumes_in <= MINUTE


def test_a_pause_for_a_time_ends_by_itself(shop: Shop) -> None:
    shop.limits.pause("shop.pair", timedelta(milliseconds=300))
    shop.ask(shop.pair)
    wait_until(lambda: shop.scripts.sweep("w", LEASE) and shop.granted() == 1, "the pause is over")
    assert "task" not in [one.kind for one in shop.limits.survey()]


@pytest.mark.parametrize(
    ("target", "options", "remedy"),
    [
        ("shop.fre", {}, "did you mean `shop.free`"),
        ("shop.pair", {"key": "a"}, "not split by a key"),
        ("shop.free", {"key": "a"}, "no limit or rate goes by this name"),
        ("shop.each:account", {"key": object()}, "give a str"),
        ("shop.pair", {"time": timedelta(0)}, "from a millisecond to a year"),
        ("shop.pair", {"time": timedelta(days=-1)}, "from a millisecond to a year"),
        ("bad\x1b[31m", {}, r"name='bad\\x1b\[31m'"),
    ],
)
def test_a_pause_that_cannot_work_is_refused_with_the_remedy(
    target: str, options: Any, remedy: str, shop: Shop
) -> None:
    with pytest.raises(ArgumentError, match=remedy):
        shop.limits.pause(target, **options)
    assert not shop.paused


def test_what_is_paused_can_be_resumed_after_its_code_is_gone(shop: Shop) -> None:
    shop.scripts.pause("task|gone|")
    assert shop.limits.resume("gone") is True
    with pytest.raises(ArgumentError, match="no task, limit or rate"):
        shop.limits.resume("gone")


# Holding off


def test_every_worker_holds_off_for_as_long_as_a_provider_asks(shop: Shop) -> None:
    assert shop.limits.hold("provider", 60) is True
    assert shop.ask(shop.paced)[0].gate == "limit|provider|"
    assert shop.limits.resume("provider") is True
    assert shop.granted() == 1


def test_a_shorter_hold_never_shortens_a_longer_one(shop: Shop) -> None:
    shop.limits.hold("provider", 600)
    assert shop.limits.hold("provider", timedelta(seconds=1)) is False
    left = shop.state("provider", "rate").resumes_in
    assert left is not None
    assert left > timedelta(minutes=9)
    assert shop.limits.hold("provider", 1200.5) is True


def test_a_hold_never_ends_a_pause(shop: Shop) -> None:
    shop.limits.pause("provider")
    assert shop.limits.hold("provider", 1) is False
    assert shop.state("provider", "rate").resumes_in is None


def test_no_time_holds_nothing(shop: Shop) -> None:
    assert shop.limits.hold("provider", 0) is False
    assert not shop.paused


@pytest.mark.parametrize(
    "seconds",
    [-1, float("nan"), float("inf"), True, None, "30", 1e300, 10**400, timedelta(days=-1), 1e9],
    ids=lambda seconds: str(seconds)[:9],
)
def test_a_time_that_cannot_work_is_refused(seconds: Any, shop: Shop) -> None:
    with pytest.raises(ArgumentError, match="seconds="):
        shop.limits.hold("provider", seconds)
    assert not shop.paused


def test_an_unknown_limit_cannot_be_held(shop: Shop) -> None:
    with pytest.raises(ArgumentError, match="did you mean `provider`"):
        shop.limits.hold("provders", 30)


def test_a_limit_that_only_other_code_declares_can_be_held(shop: Shop) -> None:
    shop.scripts.declare({"slots|elsewhere": "5"}, LEASE, LEASE)
    assert shop.limits.hold("elsewhere", 30) is True


def test_a_task_holds_a_limit_and_one_key_of_it(shop: Shop) -> None:
    shop.free.hold("provider", 30)
    shop.free.hold("accounts", timedelta(seconds=30), key="a")
    assert shop.paused == {"limit|provider|", "limit|accounts|a"}


def test_forked_children_have_connections_of_their_own(shop: Shop) -> None:
    shop.limits.survey()  # connected before the fork
    children = [
        fork(lambda: [shop.limits.hold("provider", 30 + each) for each in range(200)]) for _ in range(3)
    ]
    for _ in range(200):
        assert len(shop.listed()) == 6
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def fork(action: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


# A Redis that is away, new or emptied


def away(shop: Shop) -> Bridge:
    url = "redis://:hunter2@127.0.0.1:1/0"
    settings = BridgeSettings(
        outbox=OutboxSettings(redis_url=url), limits=LimitSettings(timeout=timedelta(milliseconds=200))
    )
    bridge = Bridge(Celery("away", set_as_current=False), settings, outbox=MemoryOutbox())
    bridge.app.task(name="away.pair", concurrency=2)(_of_all)
    return bridge


def test_a_redis_that_is_away_is_told_with_its_address_and_without_its_password(shop: Shop) -> None:
    bridge = away(shop)
    with pytest.raises(LimitsUnavailable) as refusal:
        bridge.limits.survey()
    bridge.close()
    assert str(refusal.value) == "the limits' Redis at 127.0.0.1:1 does not answer (ConnectionError)"


def test_a_task_goes_on_when_it_cannot_hold_a_limit(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    bridge = away(shop)
    bridge.app.tasks["away.pair"].hold("away.pair", 30)
    with pytest.raises(ArgumentError):
        bridge.app.tasks["away.pair"].hold("away.pair", -1)
    bridge.close()
    assert "away.pair is not held" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_new_redis_lets_runs_in_at_once_when_it_is_told_that_nothing_runs(order: str, shop: Shop) -> None:
    for key in shop.redis.scan_iter(f"{shop.scripts.root}*"):
        shop.redis.delete(key)
    if order == "before":
        assume_nothing_runs(shop.settings)
    shop.declare()
    words = {answer.word for answer in shop.ask(shop.pair, 2)}
    if order == "after":
        assert words == {"waiting"}
        start = next(one for one in shop.limits.survey() if one.kind == "start")
        assert start.waiting == 2
        shop.limits.assume_nothing_runs()
        assert shop.granted() == 2
    else:
        assert words == {"run"}


def test_changes_from_many_processes_at_once_leave_no_run_behind(shop: Shop) -> None:
    shop.ask(shop.pair, 200)
    threads = [
        threading.Thread(target=lambda: [shop.limits.set("shop.pair", 2 + each) for each in range(99)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shop.granted() == 98
