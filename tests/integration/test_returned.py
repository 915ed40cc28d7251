"""Messages that went back to a queue of a Redis broker: kept until somebody has noted that he has them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection

from bridge.local.running import RunningStack
from bridge.redis_transport import keep_returned, note_packed, returned_keys, unacked_keys
from bridge.scripts import source

FORGOTTEN_AFTER = 60_000


class Queue:
    """A queue, what gives back to it and takes from it, and what looks after that."""

    def __init__(self, url: str, prefix: str) -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.redis = redis.Redis.from_url(url)
        options = {
            "unacked_key": f"{self.name}-unacked",
            "unacked_index_key": f"{self.name}-index",
            "global_keyprefix": f"{prefix}{self.name}",  # the keys of returned messages are a deployment's
        }
        self.connection = Connection(url, transport_options=options)
        self.channel: Any = self.connection.default_channel
        note_packed(self.channel)
        keep_returned(self.channel)
        self.connection.SimpleQueue(self.name).put("one", headers={"id": "one"})
        self.key = f"{self.channel.global_keyprefix}{self.name}"
        self.kept, self.index, self.danger = returned_keys(self.channel)
        self._look = self.redis.register_script(source("look_for_returned"))

    def end(self) -> None:
        for key in self.redis.scan_iter(f"{self.channel.global_keyprefix}*"):
            self.redis.delete(key)
        self.connection.release()
        self.redis.close()

    def take(self) -> Any:
        """Take a message as a worker does: it is noted."""
        return self.connection.SimpleQueue(self.name).get(block=False)

    def lose(self) -> bytes:
        """Take it as a worker that is killed then."""
        lost: Any = self.redis.rpop(self.key)
        assert lost is not None
        return bytes(lost)

    def give_back(self) -> None:
        """Take it, and have it given back as a dead worker's messages are."""
        self.channel.qos.restore_by_tag(self.take().delivery_tag)

    def look(self, in_danger: bool = False, forgotten_after: int = FORGOTTEN_AFTER) -> int:
        for tag in self.redis.zrange(self.index, 0, -1):  # as if the last look had been a while ago
            at = float(self.redis.zscore(self.index, tag) or 0)  # type: ignore[arg-type]
            self.redis.zincrby(self.index, math.copysign(1_001, -at) if at else 0, tag)
        keys = [self.kept, self.index, self.danger]
        return int(self._look(keys=keys, args=["1" * in_danger, forgotten_after]))

    def is_looked_after(self) -> bool:
        kept, indexed = self.redis.hlen(self.kept), self.redis.zcard(self.index)
        assert kept == indexed
        return bool(kept)


@pytest.fixture(params=["", "prefix-"])
def queue(request: pytest.FixtureRequest, stack: RunningStack) -> Iterator[Queue]:
    made = Queue(stack.redis_url, request.param)
    yield made
    made.end()


def test_what_is_taken_for_the_first_time_is_not_kept(queue: Queue) -> None:
    queue.take()
    assert not queue.is_looked_after()


def test_what_went_back_is_kept_until_it_is_noted_as_taken(queue: Queue) -> None:
    queue.give_back()
    assert queue.is_looked_after()
    assert [queue.look(in_danger=True), queue.look()] == [0, 0]
    assert queue.redis.llen(queue.key) == 1
    assert queue.take().headers["id"] == "one"
    assert not queue.is_looked_after()
    assert queue.look(in_danger=True) == 0
    assert queue.redis.llen(queue.key) == 0
    assert queue.redis.hlen(unacked_keys(queue.channel)[0]) == 1


@pytest.mark.parametrize("looks_before", [0, 1, 2])
def test_what_is_lost_with_who_took_it_goes_back_again_and_again(queue: Queue, looks_before: int) -> None:
    queue.give_back()
    for _ in range(3):
        for _ in range(looks_before):
            assert queue.look() == 0
        lost = queue.lose()
        assert [queue.look(in_danger=True), queue.look()] == [0, 1]
        assert queue.redis.lrange(queue.key, 0, -1) == [lost]
    assert queue.take().headers["id"] == "one"
    assert not queue.is_looked_after()


def test_what_goes_back_again_is_the_next_to_be_taken(queue: Queue) -> None:
    queue.give_back()
    queue.lose()
    queue.connection.SimpleQueue(queue.name).put("two", headers={"id": "two"})
    assert [queue.look(in_danger=True), queue.look()] == [0, 1]
    assert queue.take().headers["id"] == "one"


def test_what_somebody_has_taken_and_notes_after_a_look_does_not_go_back(queue: Queue) -> None:
    queue.give_back()
    taken = queue.lose()
    assert queue.look(in_danger=True) == 0
    queue.redis.rpush(queue.key, taken)
    queue.take()
    assert queue.look() == 0
    assert queue.redis.llen(queue.key) == 0


def test_what_is_gone_while_nobody_died_was_purged_and_is_forgotten(queue: Queue) -> None:
    queue.give_back()
    queue.look()
    queue.channel.queue_purge(queue.name)
    assert [queue.look(), queue.look()] == [0, 0]
    assert queue.is_looked_after()
    assert queue.look(forgotten_after=1) == 0
    assert not queue.is_looked_after()
    assert queue.look(in_danger=True) == 0
    assert queue.redis.llen(queue.key) == 0


def test_a_danger_is_over_once_it_was_seen_in_its_queue(queue: Queue) -> None:
    queue.give_back()
    assert queue.look(in_danger=True) == 0
    queue.redis.set(queue.danger, 1)  # long ago
    queue.look()
    queue.channel.queue_purge(queue.name)
    assert [queue.look(), queue.look()] == [0, 0]
    assert queue.redis.llen(queue.key) == 0


def test_what_is_rejected_goes_behind_all_others_and_is_not_kept(queue: Queue) -> None:
    queue.take().reject(requeue=True)
    assert queue.redis.llen(queue.key) == 1
    assert not queue.is_looked_after()
