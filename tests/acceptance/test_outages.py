"""Supabase away, in parts or whole: tasks go on, and afterwards rows and channels are true again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.test_seed_patterns import PRIVATE, client_of, subscribed
from tests.conftest import User
from tests.database import final_rows, rows
from tests.processes import bridge, worker
from tests.waiting import eventually, wait_until

# realtime-py reads a deprecated property of websockets when its socket was closed by the server.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:realtime")


@contextmanager
def away(stack: RunningStack, part: str) -> Iterator[None]:
    """An outage of a part for as long as the block runs."""
    stack.stop_part(part)
    try:
        yield
    finally:
        stack.start_part(part)


def test_rest_is_down_while_tasks_go_on(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    with bridge(settings, tmp_path), worker(settings, tmp_path) as process:
        with away(stack, "rest"):
            runs = [app.fine.delay(user.id).id for _ in range(20)] + [app.broken.delay(user.id).id]
            wait_until(
                lambda: process.output().count(" succeeded in ") == 20, "all tasks succeeded meanwhile"
            )
            assert rows(stack, runs) == {}
        found = final_rows(stack, runs)
    statuses = [found[run]["status"] for run in runs]
    assert statuses == ["completed"] * 20 + ["failed"]


async def test_realtime_is_down_while_rows_go_on_and_the_channel_catches_up(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    shown: dict[str, dict[str, Any]] = {}

    def take(told: dict[str, Any]) -> None:
        shown[told["payload"]["run_id"]] = told["payload"]

    with bridge(settings, tmp_path), worker(settings, tmp_path):
        with away(stack, "realtime"):
            runs = [app.fine.delay(user.id).id for _ in range(5)]
            found = await asyncio.to_thread(final_rows, stack, runs)
        async with client_of(stack, user) as client:
            channel = client.channel(f"import-socials-{user.id}", PRIVATE)
            channel.on_broadcast("progress", take)
            assert await subscribed(channel) == "SUBSCRIBED"
            later = app.fine.delay(user.id).id
            await eventually(
                lambda: shown.get(later, {}).get("status") == "completed", "broadcasts go on after the outage"
            )
    assert {row["status"] for row in found.values()} == {"completed"}
    for run in set(runs) & shown.keys():  # told again, as far as we had joined by then
        assert shown[run]["seq"] == found[run]["seq"]
