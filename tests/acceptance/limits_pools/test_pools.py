"""A limit holds over all pools at once, whatever way runs are dispatched; what waits occupies nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord, group, uuid

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.limits_pools.conftest import APP, POOLS, Fleet
from tests.acceptance.limits_pools.history import History
from tests.database import final_rows, rows
from tests.processes import worker
from tests.waiting import wait_until

ELSEWHERE = """
import json, sys
from celery import Celery
url, prefix, queue, count = sys.argv[1:]
app = Celery("elsewhere", broker=url)
app.conf.broker_transport_options = {"global_keyprefix": prefix}
task = "tests.acceptance.limits_pools.app.three"
runs = [app.send_task(task, (0.02, str(number)), queue=queue) for number in range(int(count))]
print(json.dumps([run.id for run in runs]))
"""


def in_every_way(app: ModuleType, queue: str, redis_url: str, gate: Path) -> list[str]:
    """Dispatch runs of `three` by every way that app code has; returns the ids of those that run it.

    The first ones execute until the gate is open.
    """
    three, options = app.three, {"queue": queue}
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    results = [three.apply_async(kwargs={"until": str(gate)}, queue=queue) for _ in range(6)]
    results += [three.apply_async((0.02,), eta=soon, **options), three.apply_async(countdown=0.2, **options)]
    results += [three.apply_async(expires=600, **options), three.apply_async(priority=3, **options)]
    results += group(three.s(0.02, str(number)).set(**options) for number in range(4)).apply_async().results
    last = chain(three.si(0.01).set(**options) for _ in range(3)).apply_async()
    results += [last, last.parent, last.parent.parent]
    header = [three.s(0.02, str(number)).set(**options) for number in range(4)]
    results += chord(header)(app.gather.s().set(**options)).parent.results
    script = [sys.executable, "-c", ELSEWHERE, redis_url, f"{app.settings.outbox.prefix}-", queue, "4"]
    told = subprocess.run(script, capture_output=True, text=True, check=True, timeout=90, cwd="/").stdout
    return [result.id for result in results] + json.loads(told)


@pytest.mark.parametrize("pool", [*POOLS, "all"])
def test_never_above_the_limit_and_every_run_completes(
    pool: str, fleet: Fleet, stack: RunningStack, history: History, door: Callable[[str], Path]
) -> None:
    gate, at_once = door("gate"), 1 if pool == "solo" else 3
    runs = in_every_way(fleet.app, fleet.queue(pool), stack.redis_url, gate)
    history.wait_for_starts(runs, at_once)
    gate.touch()
    found = final_rows(stack, runs)
    assert {row["status"] for row in found.values()} == {"completed"}
    assert history.most_at_once(runs) == at_once, "not above, nor one by one"
    assert history.doubled(runs) == {}
    places = {(row["wait_reason"], row["queue_position"]) for row in found.values()}
    assert places == {(None, None)}, "a run that has ended waits no more"


def test_retried_and_replaced_runs_are_counted_anew(
    fleet: Fleet, stack: RunningStack, history: History
) -> None:
    app = fleet.app
    retried = [app.three_again.delay(2).id for _ in range(10)]
    replaced = [app.three_replaced.delay(str(number)).id for number in range(10)]
    found = final_rows(stack, [*retried, *replaced])
    assert {row["status"] for row in found.values()} == {"completed"}
    assert {found[run]["attempt"] for run in retried} == {3}
    assert len(history.starts(retried)) == 30
    assert len(history.starts(replaced)) == 20, "each ran, and what it was replaced by"
    for task, runs in (("three_again", retried), ("three_replaced", replaced), ("three", replaced)):
        assert history.most_at_once(runs, task) <= 3, task


def test_messages_of_the_first_protocol_are_limited_too(
    fleet: Fleet, stack: RunningStack, history: History, door: Callable[[str], Path]
) -> None:
    gate, queue = door("gate"), fleet.queue("common")
    runs = [publish_as_celery_3(fleet.app, "three", (0.02, "", str(gate)), queue) for _ in range(12)]
    history.wait_for_starts(runs, 3)
    gate.touch()
    final_rows(stack, runs)
    assert history.most_at_once(runs) == 3
    assert history.doubled(runs) == {}


def test_a_waiting_run_of_the_first_protocol_can_be_revoked(
    fleet: Fleet, stack: RunningStack, history: History, door: Callable[[str], Path]
) -> None:
    gate = door("gate")
    history.wait_for_starts([fleet.app.one.delay(until=str(gate)).id])
    waiting = publish_as_celery_3(fleet.app, "one", (), fleet.queue("common"))
    wait_until(lambda: rows(stack, [waiting]).get(waiting, {}).get("status") == "waiting", "it waits")
    fleet.app.app.control.revoke(waiting)
    assert final_rows(stack, [waiting])[waiting]["status"] == "cancelled"
    after = fleet.app.free.delay().id
    assert final_rows(stack, [after])[after]["status"] == "completed", "the workers go on"


def publish_as_celery_3(app: ModuleType, task: str, args: tuple[Any, ...], queue: str) -> str:
    run = uuid()
    body = {"task": f"{APP}.{task}", "id": run, "args": args, "kwargs": {}, "retries": 0, "utc": True}
    with app.app.producer_or_acquire() as producer:
        producer.publish(body, exchange="", routing_key=queue, serializer="json")
    return run


@pytest.mark.parametrize("multiplier", [1, 4])
def test_waiting_runs_never_block_others_of_their_worker(
    multiplier: int,
    fleet: Fleet,
    app: ModuleType,
    settings: BridgeSettings,
    stack: RunningStack,
    history: History,
    door: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    with alone(settings, tmp_path, multiplier) as (queue, node):
        gate = door("gate")
        running = app.one.apply_async((), {"until": str(gate)}, queue=queue).id
        history.wait_for_starts([running])
        waiting = [app.one.apply_async(queue=queue).id for _ in range(50)]
        others = [app.free.apply_async(queue=queue).id for _ in range(200)]
        history.wait_for_ends(others)
        assert history.starts(waiting) == []
        wait_until(lambda: held_by(app, node) == {running}, "what waits has neither a slot nor prefetch room")
        gate.touch()
        history.wait_for_ends(waiting)
        assert history.starts(waiting) == waiting, "first come, first served"
        assert history.most_at_once([running, *waiting]) == 1


def held_by(app: ModuleType, node: str) -> set[str]:
    """The runs that a worker executes, keeps ready, or has set aside."""
    inspect = app.app.control.inspect(destination=[node], timeout=30)
    answers = [inspect.active(), inspect.reserved(), inspect.scheduled()]
    assert all(answers)
    return {each["id"] for answer in answers for each in answer[node]}


@contextmanager
def alone(settings: BridgeSettings, logs: Path, multiplier: int) -> Iterator[tuple[str, str]]:
    """One worker of two slots on a queue of its own: the queue and the worker's name."""
    name = f"alone{multiplier}"
    queue = f"{settings.outbox.prefix}-{name}"
    arguments = ("-Q", queue, "--prefetch-multiplier", str(multiplier), "--without-gossip")
    with worker(settings, logs, APP, "prefork", 2, name, arguments) as process:
        node = next(each for each in process.output().split() if each.startswith(f"{name}@"))
        yield queue, node
