"""What a test leaves in Redis must not be the next one's: its messages, leases, lines and rates."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from bridge.limits.scripts import LimitScripts
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import settings_on

_BINDINGS = b"-_kombu.binding."


@contextmanager
def own_settings(stack: RunningStack, name: str) -> Iterator[BridgeSettings]:
    """Settings on the stack for the tests of one module, whose keys in Redis are gone afterwards."""
    settings = settings_on(stack, f"{name}-{secrets.token_hex(4)}")
    yield settings
    with redis.Redis.from_url(stack.redis_url) as client:
        for key in client.scan_iter(f"{settings.outbox.prefix}*", count=1_000):
            client.delete(key)


def forget(settings: BridgeSettings) -> None:
    """Empty the queues and the limits of a deployment that has no worker any more.

    Its bridges go on: what they read and hold stays, and so do bindings, which a process declares once.
    """
    prefix = settings.outbox.prefix
    with redis.Redis.from_url(settings.outbox.redis_url) as broker:
        for pattern in (f"{prefix}-*", f"{prefix}:limits:*", f"{prefix}:checkpoint:*"):
            left = [key for key in broker.scan_iter(pattern, count=1_000) if _BINDINGS not in key]
            if left:
                broker.delete(*left)
    nothing_runs(settings)


def nothing_runs(settings: BridgeSettings) -> None:
    """Tell Redis so: else it lets nobody in for one lease, as it knows nothing of who may be executing."""
    limits = settings.limits
    with redis.Redis.from_url(settings.limits_redis_url) as client:
        scripts = LimitScripts(client, settings.outbox.prefix)
        scripts.declare({}, limits.lease, limits.grant, nothing_runs=True)
