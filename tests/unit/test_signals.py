"""What Celery does with a run, and what its row then says: a real worker on an in-memory broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task, chain, chord, group, signals
from celery.app.task import Context
from celery.contrib.testing.worker import start_worker

from bridge.current import current_run
from bridge.errors import ArgumentError
from bridge.events import FINAL_STATUSES, run_uuid
from bridge.extension import Bridge
from bridge.lifecycle import members_waiting_for
from bridge.settings import BridgeSettings, LimitSettings
from bridge.testing import MemoryOutbox, MemoryRows
from tests.waiting import wait_until

USER = "5f7c2b1e-0000-4000-8000-000000000001"
OTHER = "5f7c2b1e-0000-4000-8000-000000000002"
CHANNEL = f"import-socials-{USER}"
_names = itertools.count()


class Wrapped(Task):
    """A base class as Celery's own documentation writes it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.entered = True
        return self.run(*args, **kwargs)


class House:
    """An app with a bridge on memory, and its worker."""

    def __init__(self, task_class: type | None = None) -> None:
        name = f"app{next(_names)}"
        self.app = Celery(
            name, broker="memory://", backend="cache+memory://", set_as_current=False, task_cls=task_class
        )
        self.app.conf.update(
            broker_transport_options={"polling_interval": 0.02},
            task_default_queue=name,
            broker_connection_retry_on_startup=True,
            worker_hijack_root_logger=False,
        )
        self.outbox = MemoryOutbox()
        # There is no Redis here: the worker's keeper tries to give its lease up for as long as that may last.
        settings = BridgeSettings(limits=LimitSettings(lease=timedelta(seconds=1)))
        self.bridge = Bridge(self.app, settings, outbox=self.outbox)
        self.rows = MemoryRows()
        self.consumer: Any = None

    def task(self, *args: Any, **options: Any) -> Any:
        """`app.task` under a name that no other test has."""
        if args:
            return self.task()(args[0])
        return self.app.task(name=f"task-{next(_names)}", **options)

    def ready(self) -> None:
        """Make the tasks declared so far known to the worker."""
        self.consumer.update_strategies()

    def row(self, task_id: Any) -> dict[str, Any]:
        """The row as it is now; empty while there is none."""
        rows = MemoryRows()
        asyncio.run(self.outbox.publish(rows))
        self.rows = rows
        return rows.rows.get(run_uuid(task_id), {})

    def final(self, task_id: Any) -> dict[str, Any]:
        wait_until(lambda: self.row(task_id).get("status") in FINAL_STATUSES, f"{task_id} is final", 8)
        return self.row(task_id)

    def children(self, task_id: Any) -> list[dict[str, Any]]:
        self.row(task_id)
        return [row for row in self.rows.rows.values() if row["parent_id"] == run_uuid(task_id)]


def _as_it_is(**_: Any) -> None:
    """Celery leaves logging alone where somebody else sets it up."""


@pytest.fixture(scope="module")
def working() -> Iterator[House]:
    """One worker for all tests: to end one takes seconds."""
    made = House()
    signals.setup_logging.connect(_as_it_is)
    with start_worker(made.app, pool="solo", perform_ping_check=False, shutdown_timeout=20) as worker:
        made.consumer = worker.consumer
        yield made
    made.bridge.close()
    signals.setup_logging.disconnect(_as_it_is)


@pytest.fixture
def house(working: House) -> Iterator[House]:
    working.outbox.patches.clear()
    yield working
    working.app.conf.update(task_always_eager=False)


@pytest.fixture
def eager() -> Iterator[Callable[..., House]]:
    """Makes apps that run their tasks where they are called."""
    made: list[House] = []

    def make(**options: Any) -> House:
        made.append(House(**options))
        made[-1].app.conf.update(task_always_eager=True)
        return made[-1]

    yield make
    for each in made:
        each.bridge.close()


HOSTILE: list[Any] = [
    ["list"],
    "text",
    7,
    {"user_id": ["x"], "channel": {"a": 1}, "parent": 7, "metadata": "no", "tags": "no", "earlier": "x"},
    {"user_id": "not-a-uuid", "channel": "c" * 10_000, "parent": "../..", "tags": [1, None, {"a": 2}]},
    {"channel": "a\x00b", "metadata": {"k": "\x00", "n": 1e999}, "tags": ["\x00"] * 1_000, "earlier": 2**70},
]


@pytest.mark.parametrize("forged", HOSTILE)
def test_a_forged_header_breaks_nothing(house: House, forged: Any) -> None:
    @house.task(bind=True)
    def fine(self: Any) -> None:
        self.log("I run")

    house.ready()
    run = fine.apply_async(headers={"taskcast": forged}).id
    row = house.final(run)
    assert (row["status"], row["attempt"]) == ("completed", 1)
    assert [line["message"] for line in house.rows.logs[run]] == ["I run"]
    assert (row["user_id"], row["channel"], row["parent_id"]) == (None, None, None)
    assert "\x00" not in str(row)
    assert len(str(row)) < 5_000


@pytest.mark.parametrize("retries", ["x", -5, 2**40, [1]])
def test_a_forged_count_of_retries_breaks_nothing(house: House, retries: Any) -> None:
    @house.task
    def fine() -> None: ...

    house.ready()
    run = fine.apply_async(headers={"retries": retries}).id
    assert house.final(run)["status"] == "completed"


def test_hostile_names_and_files_are_cleaned(house: House) -> None:
    house.ready()
    run = house.app.send_task("no\x00such" * 500, kwargs={"input_file": "\x00" + "f" * 10_000}).id
    row = house.final(run)
    assert "\x00" not in str(row)
    assert len(row["task"]) <= 500


@pytest.mark.parametrize("base", [Wrapped, None])
@pytest.mark.parametrize("as_class", [False, True])
def test_a_base_class_of_the_users_own_reports_too(
    base: Any, as_class: bool, eager: Callable[..., House]
) -> None:
    house = eager(task_class=base if as_class else None)

    @house.task(bind=True, base=None if as_class else base, channel="import-socials-{user_id}")
    def parent(self: Any, user_id: str) -> bool:
        self.progress(1, 2, "half")
        child.delay()
        return getattr(self, "entered", False)

    @house.task
    def child() -> None: ...

    run = parent.delay(USER)
    row = house.final(run.id)
    assert (row["status"], row["channel"], row["message"]) == ("completed", CHANNEL, "half")
    assert len(house.children(run.id)) == 1, "what a body publishes is its child"
    assert run.get() is (base is not None), "the base's own __call__ has run"


def test_a_task_without_a_mirror_is_left_alone(house: House) -> None:
    @house.task(mirror=False)
    def unseen(user_id: int) -> None: ...

    @house.task
    def seen() -> None: ...

    house.ready()
    unseen.delay(12)
    unseen.delay(user_id=12)
    house.bridge.signals.requeued(unseen, {"id": "x", "retries": 0})
    last = seen.delay().id
    house.final(last)
    assert {patch.run_id for patch in house.outbox.patches} == {last}


def test_a_replacement_in_a_later_attempt_ends_the_row(house: House) -> None:
    @house.task
    def other() -> int:
        return 7

    @house.task(bind=True, channel="import-socials-{user_id}")
    def twice(self: Any, user_id: str, kind: str) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        forms = {
            "task": other.si(),
            "chain": chain(other.si(), other.si()),
            "chord": chord([other.si(), other.si()], other.si()),
            "group": group(other.si(), other.si()),
            "chain of chords": chain(other.si(), chord([other.si()], other.si())),
        }
        return self.replace(forms[kind])

    house.ready()
    runs = {
        kind: twice.delay(USER, kind).id for kind in ("task", "chain", "chord", "group", "chain of chords")
    }
    rows = {kind: house.final(run) for kind, run in runs.items()}
    assert {kind: (row["status"], row["attempt"]) for kind, row in rows.items()} == dict.fromkeys(
        runs, ("completed", 2)
    )


def test_a_replacement_may_try_again_itself(house: House) -> None:
    @house.task(bind=True)
    def stubborn(self: Any) -> None:
        if self.request.retries < 2:
            raise self.retry(countdown=0)

    @house.task(bind=True)
    def twice(self: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return self.replace(stubborn.si())

    house.ready()
    row = house.final(twice.delay().id)
    assert (row["status"], row["attempt"]) == ("completed", 4)


def test_an_eager_run_inside_a_run_is_its_child(house: House) -> None:
    @house.task
    def inner() -> int:
        return 3

    @house.task(bind=True, channel="import-socials-{user_id}")
    def outer(self: Any, user_id: str) -> int:
        done = inner.apply().get(disable_sync_subtasks=False)
        self.progress(1, 2, "after it")
        return int(done)

    house.ready()
    run = outer.delay(USER)
    row = house.final(run.id)
    [child] = house.children(run.id)
    assert (child["status"], child["channel"], child["user_id"]) == ("completed", CHANNEL, USER)
    assert (row["status"], row["message"]) == ("completed", "after it")


@pytest.mark.parametrize("propagates", [False, True])
def test_an_eager_app_mirrors_its_runs(propagates: bool, eager: Callable[..., House]) -> None:
    house = eager()
    house.app.conf.update(task_eager_propagates=propagates)

    @house.task
    def broken() -> None:
        raise KeyError("x")

    try:
        broken.apply_async(task_id=OTHER)
    except KeyError:
        assert propagates
    row = house.row(OTHER)
    assert (row["status"], row["error_code"]) == ("failed", "error")
    assert current_run() is None


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_what_celery_fails_at_after_the_body_is_a_failure(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @house.task
    def fine() -> None: ...

    def away(*_: Any, **__: Any) -> None:
        raise RuntimeError("the result backend is away")

    monkeypatch.setattr(type(house.app.backend), "mark_as_done", away)
    house.ready()
    row = house.final(fine.delay().id)
    assert (row["status"], row["error_code"]) == ("failed", "error")
    assert "Signal handler" not in caplog.text


def test_an_older_protocol_is_mirrored(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.app.amqp, "create_task_message", house.app.amqp.task_protocols[1])

    @house.task(channel="import-socials-{user_id}")
    def fine(user_id: str) -> None: ...

    house.ready()
    row = house.final(fine.delay(USER).id)
    assert (row["status"], row["user_id"]) == ("completed", USER)
    assert "Signal handler" not in caplog.text


@pytest.mark.parametrize("task_id", ["import 7", "0" * 5_000, OTHER.upper()])
def test_task_ids_of_any_kind(house: House, task_id: str) -> None:
    @house.task
    def fine() -> None: ...

    house.ready()
    fine.apply_async(task_id=task_id)
    assert house.final(task_id)["status"] == "completed"


def test_two_apps_in_one_process_keep_to_their_own_runs() -> None:
    first, second = House(), House()

    def same() -> None: ...

    for each in (first, second):
        each.app.task(same, name="same.name")
    known = first.app.tasks["same.name"].delay().id
    unknown = first.app.send_task("elsewhere.task").id
    assert (first.row(known)["status"], first.row(unknown)["status"]) == ("queued", "queued")
    assert second.outbox.patches == []
    first.bridge.close()
    second.bridge.close()


def test_a_broker_that_takes_no_message_fails_the_run_that_was_shown(house: House) -> None:
    from kombu.exceptions import OperationalError

    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("away")

    house.app.amqp.send_task_message  # noqa: B018 - made before it is replaced
    publish = house.app.amqp.Producer.publish
    house.app.amqp.Producer.publish = refuse
    try:
        with pytest.raises(OperationalError):
            house.app.send_task("elsewhere.task", task_id=OTHER)
    finally:
        house.app.amqp.Producer.publish = publish
    assert house.row(OTHER)["error_code"] == "publish_failed"


def test_autoretry_counts_its_attempts(house: House) -> None:
    @house.task(
        bind=True, autoretry_for=(OSError,), retry_backoff=False, default_retry_delay=0, max_retries=2
    )
    def flaky(self: Any) -> None:
        raise OSError("away")

    house.ready()
    row = house.final(flaky.delay().id)
    assert (row["status"], row["attempt"], row["max_attempts"]) == ("failed", 3, 3)


def test_members_of_every_canvas_end_and_report_on_their_parents_channel(house: House) -> None:
    @house.task
    def add(x: int, y: int = 1) -> int:
        return x + y

    @house.task(bind=True)
    def member(self: Any, x: int) -> int:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return x

    @house.task(bind=True, channel="import-socials-{user_id}")
    def parent(self: Any, user_id: str) -> None:
        group(member.s(n) for n in range(3)).apply_async()
        chain(add.s(1), add.s(2), add.s(3)).apply_async()
        chord([add.s(1), member.s(2)], add.si(3)).apply_async()
        add.chunks(zip(range(4), range(4), strict=True), 2).apply_async()
        add.apply_async((1,), link=add.s(5))

    house.ready()
    run = parent.delay(USER).id
    house.final(run)

    def all_final() -> bool:
        children = house.children(run)
        return len(children) == 13 and all(child["status"] in FINAL_STATUSES for child in children)

    wait_until(all_final, "every member is final", 8)
    children = house.children(run)
    assert {child["channel"] for child in children} == {CHANNEL}
    assert {child["status"] for child in children} == {"completed"}


def test_a_format_that_does_not_fit_is_refused_at_the_call(house: House) -> None:
    @house.task(channel="runs-{number:05d}")
    def fine(number: Any) -> None: ...

    with pytest.raises(ArgumentError, match="channel"):
        fine.delay("seven")


def test_those_who_wait_are_found_in_a_context_and_in_the_dict_it_is_made_of() -> None:
    body, link = str(uuid4()), str(uuid4())
    request = {
        "chord": {"task": "add", "options": {"task_id": body}},
        "chain": [{"task": "last", "options": {"task_id": link}}],
    }
    assert members_waiting_for(request) == members_waiting_for(Context(request)) == [body, link]
    assert members_waiting_for({}) == members_waiting_for(Context()) == []
