"""Where runs are seen: in queues, with workers, in the limits' waiting rooms; on a real Redis."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from celery import Celery

from bridge.events import run_uuid
from bridge.limits.scripts import Ask, LimitScripts, Parcel
from bridge.local.running import RunningStack
from bridge.reaper.whereabouts import Lookout, Place
from bridge.settings import BridgeSettings

LANE = "task|t| slots|one|"


@pytest.fixture
def client(stack: RunningStack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url) as made:
        yield made


@pytest.fixture(params=["", "prefixed-"])
def app(stack: RunningStack, client: redis.Redis, request: pytest.FixtureRequest) -> Iterator[Celery]:
    """An app with queues of its own, with and without a prefix of the broker's keys."""
    unique = f"where-{secrets.token_hex(4)}"
    made = Celery("where", broker=stack.redis_url, set_as_current=False)
    made.conf.task_default_queue = unique
    made.conf.broker_transport_options = {
        "global_keyprefix": request.param, "unacked_key": f"{unique}-unacked",
    }  # fmt: skip
    yield made
    made.close()
    for key in client.scan_iter(f"*{unique}*"):
        client.delete(key)


@pytest.fixture
def other(app: Celery) -> Iterator[Celery]:
    """An app of somebody else on the same broker."""
    made = Celery("other", broker=app.conf.broker_url, set_as_current=False)
    made.conf.broker_transport_options = app.conf.broker_transport_options
    yield made
    made.close()


@pytest.fixture
def scripts(settings: BridgeSettings, client: redis.Redis) -> LimitScripts:
    return LimitScripts(client, settings.outbox.prefix)


@pytest.fixture
def lookout(app: Celery, client: redis.Redis, scripts: LimitScripts) -> Lookout:
    return Lookout(app, client, scripts.root)


def places(lookout: Lookout, *task_ids: str, queues: tuple[str, ...] = ()) -> list[Place | None]:
    seen = lookout.look(queues)
    assert seen.knows_messages
    return [seen.of(run_uuid(each)) for each in task_ids]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("priority", [0, 5, 9])
def test_messages_of_each_priority_and_protocol_are_seen(
    protocol: int, priority: int, app: Celery, lookout: Lookout
) -> None:
    app.conf.task_protocol = protocol
    run = app.send_task("t", priority=priority).id
    assert places(lookout, run, str(uuid4())) == [Place.QUEUED, None]


def test_all_pages_of_a_long_queue_are_read(app: Celery, lookout: Lookout) -> None:
    runs = [app.send_task("t", task_id=f"number {each}").id for each in range(1_203)]
    assert set(places(lookout, *runs)) == {Place.QUEUED}


def test_queues_that_the_app_does_not_know_are_seen(app: Celery, other: Celery, lookout: Lookout) -> None:
    name = f"{app.conf.task_default_queue}-other"
    run = other.send_task("t", queue=name).id  # declares it, as any publisher does
    assert places(lookout, run) == [Place.QUEUED]
    granted = other.send_task("t", queue=f"{name}.granted").id
    assert places(lookout, run, granted, queues=(name,)) == [Place.QUEUED] * 2


def test_messages_that_workers_have_taken_are_seen(
    app: Celery, lookout: Lookout, client: redis.Redis, scripts: LimitScripts
) -> None:
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    own = f"{app.conf.task_default_queue}-own"
    common, taken = str(uuid4()), str(uuid4())
    for key, run in ((app.conf.broker_transport_options["unacked_key"], common), (own, taken)):
        client.hset(f"{prefix}{key}", "tag", json.dumps([{"headers": {"id": run}}, "", "q"]))
    client.hset(f"{scripts.root}unacked", "w1", json.dumps([own, f"{own}-index"]))
    assert places(lookout, common, taken) == [Place.QUEUED] * 2


def test_what_workers_keep_and_what_waits_for_a_limit_is_seen(
    lookout: Lookout, scripts: LimitScripts, settings: BridgeSettings
) -> None:
    lease, grant = settings.limits.lease, settings.limits.grant
    scripts.declare({"slots|one": "1"}, lease, grant, nothing_runs=True)
    held, granted, waiting, ending = (str(uuid4()) for _ in range(4))
    holders = {}
    for run in (held, granted, waiting, ending):
        ask = Ask(f"{run}:1:0", "w1", LANE, (1,), meta="{}")
        answer = scripts.admit(ask)
        if answer.word == "full":
            scripts.admit(ask, Parcel(b"message", "", "{}"))
        holders[run] = answer.holder
    scripts.withdraw(ending, "revoked")
    assert places(lookout, held, granted, waiting, ending) == [
        Place.KEPT, Place.WAITING, Place.WAITING, Place.KEPT,
    ]  # fmt: skip
    assert lookout.line_of(waiting) == ("slots|one|", 2)
    scripts.release("w1", holders[held], LANE)
    assert places(lookout, held, granted) == [None, Place.KEPT]
    assert lookout.line_of(granted) is None


def test_a_redis_that_workers_have_told_nothing_is_known_as_such(
    lookout: Lookout, scripts: LimitScripts, client: redis.Redis
) -> None:
    assert lookout.look(()).knows_workers
    client.delete(f"{scripts.root}state")
    assert not lookout.look(()).knows_workers


@pytest.mark.parametrize("message", ["{}", "no JSON", '"text"', '{"headers": {"id": 7}}', "[1]"])
def test_what_is_no_task_in_a_queue_of_the_app_is_told_and_in_that_of_another_passed_by(
    message: str,
    app: Celery,
    other: Celery,
    lookout: Lookout,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix, queue = app.conf.broker_transport_options["global_keyprefix"], app.conf.task_default_queue
    other.send_task("t", queue=f"{queue}-others")
    client.lpush(f"{prefix}{queue}-others", message)
    assert lookout.look(()).knows_messages
    client.lpush(f"{prefix}{queue}", message)
    assert not lookout.look(()).knows_messages
    assert not lookout.look(()).knows_messages
    assert caplog.text.count("cannot be read") == 1


def test_a_broker_of_another_kind_cannot_be_looked_into(client: redis.Redis, scripts: LimitScripts) -> None:
    app = Celery("memory", broker="memory://", set_as_current=False)
    assert not Lookout(app, client, scripts.root).look(()).knows_messages
