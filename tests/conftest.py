"""What tests share: one embedded stack for the session, users on it, and a Redis of its own."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import redis

from bridge.limits.scripts import LimitScripts
from bridge.local import Stack
from bridge.local.realtime.limits import TenantLimits
from bridge.local.running import RunningStack
from bridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    LimitSettings,
    OutboxSettings,
    SupabaseSettings,
)

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job: its children would not mind Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class User:
    """A signed-in user of the embedded stack."""

    id: str
    token: str


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The embedded stack with all migrations, shared by the session; tests use users of their own."""
    limits = TenantLimits(events_per_second=2_000, joins_per_second=1_000)
    with Stack.running(tenant=limits) as running:
        yield running


@pytest.fixture
def new_user(stack: RunningStack) -> Callable[[], User]:
    """Signs up an anonymous user."""

    def sign_up() -> User:
        answer = httpx.post(
            f"{stack.url}/auth/v1/signup", json={}, headers={"apikey": stack.anon_key}, timeout=30
        )
        answer.raise_for_status()
        return User(answer.json()["user"]["id"], answer.json()["access_token"])

    return sign_up


@pytest.fixture
def user(new_user: Callable[[], User]) -> User:
    return new_user()


def settings_on(stack: RunningStack, prefix: str) -> BridgeSettings:
    """Settings of a bridge on the embedded stack, its Redis keys below `prefix`, where nothing runs yet."""
    limits = LimitSettings(lease=timedelta(seconds=5))
    with redis.Redis.from_url(stack.redis_url) as client:
        LimitScripts(client, prefix).declare({}, limits.lease, limits.grant, nothing_runs=True)
    return BridgeSettings(
        outbox=OutboxSettings(redis_url=stack.redis_url, prefix=prefix, partitions=4),
        limits=limits,
        supabase=SupabaseSettings(url=stack.url, key=stack.service_key),  # type: ignore[arg-type]
        broadcast=BroadcastSettings(messages_per_second=2_000),
        deployment=prefix,
    )


@pytest.fixture
def settings(stack: RunningStack) -> Iterator[BridgeSettings]:
    """Settings on the stack, with Redis keys that no other test shares and that are gone afterwards."""
    prefix = f"test-{secrets.token_hex(4)}"
    yield settings_on(stack, prefix)
    client = redis.Redis.from_url(stack.redis_url)
    for key in client.scan_iter(f"{prefix}*"):
        client.delete(key)
    client.close()


@pytest.fixture(scope="session")
def checkout() -> Path:
    return Path(__file__).parent.parent
