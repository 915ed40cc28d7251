"""Who may read a partition, on a real Redis: one replica at a time, also when it is slow or was stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from bridge.publisher.partitions import Partitions
from bridge.settings import BridgeSettings
from tests.waiting import eventually

LEASE = timedelta(seconds=30)
ALL = frozenset(range(4))


@pytest.fixture
async def redis(settings: BridgeSettings) -> AsyncIterator[Redis]:
    client = Redis.from_url(settings.outbox.redis_url)
    yield client
    await client.aclose()


def replica(redis: Redis, settings: BridgeSettings, lease: timedelta = LEASE) -> Partitions:
    return Partitions(redis, settings.outbox.prefix, len(ALL), lease)


async def test_a_newcomer_gets_its_share_once_the_reads_that_are_on_their_way_are_over(
    redis: Redis, settings: BridgeSettings
) -> None:
    first, second = replica(redis, settings), replica(redis, settings)
    assert await first.beat() == ALL
    assert not await second.beat()
    kept = await first.beat()
    assert len(kept) == 2
    assert not await second.beat(), "a read of these may still be on its way"
    await first.let_go()
    assert await second.beat() == ALL - kept
    assert await first.beat() == kept


async def test_what_is_not_given_back_yet_is_kept_when_the_newcomer_goes_again(
    redis: Redis, settings: BridgeSettings
) -> None:
    first, second = replica(redis, settings), replica(redis, settings)
    await first.beat()
    await second.beat()
    assert len(await first.beat()) == 2
    await second.release()
    assert await first.beat() == ALL
    await first.let_go()
    assert await first.beat() == ALL


async def test_a_replica_that_was_stopped_for_longer_than_its_lease_reads_nothing_before_it_has_asked(
    redis: Redis, settings: BridgeSettings
) -> None:
    stopped = replica(redis, settings, timedelta(milliseconds=50))
    await stopped.beat()
    await eventually(lambda: not stopped.owned, "it does not trust its leases any more")
    other = replica(redis, settings)
    keys = [f"{settings.outbox.prefix}:partition:{each}" for each in ALL]

    async def ran_out() -> bool:
        return not await redis.exists(*keys)

    await eventually(ran_out, "the leases are over")  # type: ignore[arg-type]
    assert await other.beat() == ALL
    assert not await stopped.beat()


async def test_a_partition_that_another_may_have_read_is_known_to_be_taken_anew(
    redis: Redis, settings: BridgeSettings
) -> None:
    first = replica(redis, settings)
    await first.beat()
    assert first.taken() == ALL
    await first.beat()
    assert not first.taken()
    await redis.delete(f"{settings.outbox.prefix}:partition:2")
    assert await first.beat() == ALL
    assert first.taken() == {2}
