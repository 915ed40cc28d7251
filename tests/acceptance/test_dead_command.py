"""`celery bridge dead` as an operator types it, beside a bridge that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bridge.events import Patch, encode
from bridge.local.running import RunningStack
from bridge.outbox import partition_of, stream_key
from bridge.publisher.dead import dead_key
from bridge.settings import BridgeSettings
from tests.database import rows
from tests.processes import CHECKOUT, bridge, environment
from tests.waiting import PATIENCE, wait_until

GARBAGE = b"\x1b[2J\x00 garbage"


class Operator:
    """The command, and the Redis that it looks into."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.settings = settings
        self.redis = redis.Redis.from_url(settings.outbox.redis_url)

    def dead(self, *arguments: str, redis_url: str | None = None) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of stdout, lines of stderr."""
        outbox = self.settings.outbox
        own = outbox.model_copy(update={"redis_url": redis_url or outbox.redis_url})
        # Looking at the dead needs no Supabase: an operator may do it while there is none.
        settings = self.settings.model_copy(update={"outbox": own, "supabase": None})
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tests.acceptance.app", "bridge", "dead", *arguments],
            cwd=CHECKOUT, env={**os.environ, **environment(settings)}, capture_output=True, text=True,
            timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def put(self, root: str, raw: bytes) -> None:
        outbox = self.settings.outbox
        self.redis.xadd(stream_key(outbox.prefix, partition_of(root, outbox.partitions)), {"e": raw})

    def kept(self) -> int:
        return int(self.redis.xlen(dead_key(self.settings.outbox.prefix)))


@pytest.fixture
def operator(settings: BridgeSettings) -> Iterator[Operator]:
    made = Operator(settings)
    made.redis.delete(dead_key(settings.outbox.prefix))  # what tests before have left there
    yield made
    made.redis.close()


def test_an_operator_sees_why_an_event_is_dead_replays_it_and_drops_the_rest(
    operator: Operator, stack: RunningStack, settings: BridgeSettings, tmp_path: Path
) -> None:
    run = str(uuid.uuid4())
    operator.put(run, GARBAGE)
    operator.put(run, encode(Patch(run, 1, time.time(), {"status": "queued", "task": "import"})))
    operator.put(run, encode(Patch(run, 1, time.time(), {"status": "completed", "started_at": "no time"})))
    with bridge(settings, tmp_path) as process:
        wait_until(lambda: operator.kept() == 2, "both are set apart")
        process.says("`celery -A <app> bridge dead` shows them")
        wait_until(lambda: rows(stack, [run]).get(run, {}).get("status") == "queued", "the good one is shown")

        code, [heading, first, second, remedy], told = operator.dead()
        assert (code, told) == (0, [])
        assert heading.split() == ["id", "when", "partition", "run", "reason"]
        assert "not an outbox entry" in first
        assert run in second
        assert 'invalid input syntax for type timestamp with time zone: "no time"' in second
        assert remedy.startswith("2 of at most 10000")
        _, objects, _ = operator.dead("--json")
        ids = [json.loads(each)["id"] for each in objects]
        assert [json.loads(each)["run_id"] for each in objects] == [None, run]

        _, shown, _ = operator.dead("show", ids[0])
        assert shown[-1] == "\\x1b[2J\\x00 garbage"
        _, shown, _ = operator.dead("show", ids[1])
        assert json.loads(shown[-1])["set"]["started_at"] == "no time"

        assert operator.dead("replay", ids[1]) == (
            0, ["replayed: 1; what fails again comes back with its reason"], [],
        )  # fmt: skip
        wait_until(lambda: operator.kept() == 2, "it fails again and comes back")
        code, found, told = operator.dead("show", ids[1])
        remedy = "`celery -A <app> bridge dead` lists those there are"
        assert (code, found, told) == (1, [], [f"taskcast: no dead entry '{ids[1]}'; {remedy}"])

        code, _, told = operator.dead("drop", ids[0], ids[1])
        assert (code, operator.kept()) == (1, 2), "an unknown id is told before anything is dropped"
        assert operator.dead("drop", ids[0]) == (0, ["dropped: 1"], [])
        assert operator.dead("drop", "--all") == (0, ["dropped: 1"], [])
        assert operator.dead() == (0, ["no dead entries"], [])


@pytest.mark.parametrize("command", [(), ("show", "1-1"), ("replay", "--all"), ("drop", "1-1")])
def test_a_redis_that_is_away_is_one_line_without_the_password(
    command: tuple[str, ...], operator: Operator
) -> None:
    code, shown, told = operator.dead(*command, redis_url="redis://:hunter2@127.0.0.1:1/0")
    assert (code, shown) == (1, [])
    problem = "no answer from Redis at 127.0.0.1:1 (ConnectionError)"
    assert told == [f"taskcast: {problem}; is REDIS_URL that of the workers?"]


@pytest.mark.parametrize("command", [("replay",), ("drop",), ("drop", "1-1", "--all")])
def test_nothing_is_replayed_or_dropped_that_was_not_named(
    command: tuple[str, ...], operator: Operator
) -> None:
    code, _, told = operator.dead(*command)
    assert code == 2
    assert told[-1] == "Error: name the entries by their ids, or all of them with --all"
