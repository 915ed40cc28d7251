"""Code that people already have works as it stands, from the official client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from supabase import AsyncClient, acreate_client

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.conftest import User
from tests.database import final_rows
from tests.processes import bridge, worker
from tests.waiting import PATIENCE, eventually

PRIVATE: Any = {"config": {"private": True}}


@asynccontextmanager
async def client_of(stack: RunningStack, user: User | None) -> AsyncIterator[AsyncClient]:
    """An official client signed in as the user, or with the anon key alone."""
    client = await acreate_client(stack.url, stack.anon_key)
    if user is not None:
        await client.realtime.set_auth(user.token)
        client.postgrest.auth(user.token)
    try:
        yield client
    finally:
        await client.remove_all_channels()
        await client.realtime.close()
        await client.postgrest.aclose()
        await client.auth.close()


async def subscribed(channel: Any) -> str:
    """Subscribe and return the first state told."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_state(state: Any, error: Exception | None) -> None:
        if not told.done():
            told.set_result(state.value)

    await channel.subscribe(on_state)
    return await asyncio.wait_for(told, PATIENCE)


async def test_pattern_1_the_react_page_reads_payload_message(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    """The article's page joins a public channel; a project that serves such pages says so in a setting."""
    public = settings.model_copy(
        update={"broadcast": settings.broadcast.model_copy(update={"private": False})}
    )
    seen: list[str] = []

    def see(message: dict[str, Any]) -> None:
        if text := message["payload"]["message"]:
            seen.append(text)
            (tmp_path / text).touch()

    with bridge(public, tmp_path), worker(settings, tmp_path):
        async with client_of(stack, user) as client:
            channel = client.channel(f"import-socials-{user.id}")
            channel.on_broadcast("progress", see)
            assert await subscribed(channel) == "SUBSCRIBED"
            run = app.import_verbatim.delay(user.id, str(tmp_path)).id
            await asyncio.to_thread(final_rows, stack, [run])
    assert list(dict.fromkeys(seen)) == [
        "Importing mastodon...",
        "Extracting topics for mastodon...",
        "Importing bluesky...",
        "Extracting topics for bluesky...",
    ]


async def test_pattern_1_private_channels_are_for_their_user_alone(
    app: ModuleType,
    stack: RunningStack,
    settings: BridgeSettings,
    new_user: Callable[[], User],
    tmp_path: Path,
) -> None:
    owner, stranger = new_user(), new_user()
    heard: dict[str, list[Any]] = {"owner": [], "public": []}
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        async with (
            client_of(stack, owner) as own,
            client_of(stack, stranger) as strange,
            client_of(stack, None) as anonymous,
            client_of(stack, None) as visitor,
        ):
            name = f"import-socials-{owner.id}"
            mine = own.channel(name, PRIVATE)
            mine.on_broadcast("state", heard["owner"].append)
            assert await subscribed(mine) == "SUBSCRIBED"
            assert await subscribed(strange.channel(name, PRIVATE)) == "CHANNEL_ERROR"
            assert await subscribed(anonymous.channel(name, PRIVATE)) == "CHANNEL_ERROR"
            public = visitor.channel(name)
            public.on_broadcast("state", heard["public"].append)
            assert await subscribed(public) == "SUBSCRIBED"
            run = app.fine.delay(owner.id).id
            await asyncio.to_thread(final_rows, stack, [run])
            statuses = ["queued", "in_progress", "completed"]
            await eventually(
                lambda: [told["payload"]["status"] for told in heard["owner"]][-1:] == statuses[-1:],
                "the owner hears the end",
            )
    assert heard["public"] == []
    assert [told["payload"]["status"] for told in heard["owner"]] == statuses
    sequence = [told["payload"]["seq"] for told in heard["owner"]]
    assert sequence == sorted(set(sequence))


async def test_pattern_2_the_row_is_selected_and_listened_to(
    app: ModuleType,
    stack: RunningStack,
    settings: BridgeSettings,
    new_user: Callable[[], User],
    tmp_path: Path,
) -> None:
    owner, stranger = new_user(), new_user()
    changes: dict[str, list[dict[str, Any]]] = {"owner": [], "stranger": [], "anonymous": []}
    with bridge(settings, tmp_path):
        run = app.process_file.delay(owner.id, "talk.mp4").id
        async with (
            client_of(stack, owner) as own,
            client_of(stack, stranger) as strange,
            client_of(stack, None) as anonymous,
        ):
            row = await eventually(lambda: _job(own, run), "the row is there before any worker")
            assert (row["status"], row["progress"], row["input_file"]) == ("queued", 0, "talk.mp4")
            assert await _job(strange, run) is None
            assert await _job(anonymous, run) is None
            ready: set[str] = set()
            for name, client in (("owner", own), ("stranger", strange), ("anonymous", anonymous)):
                channel = client.channel("public:processing_jobs")
                channel.on_system(lambda told, who=name: ready.add(who))
                channel.on_postgres_changes(
                    "UPDATE",
                    schema="public",
                    table="processing_jobs",
                    filter=f"id=eq.{run}",
                    callback=lambda payload, seen=changes[name]: seen.append(payload["data"]["record"]),
                )
                assert await subscribed(channel) == "SUBSCRIBED"
            await eventually(lambda: {"owner", "stranger"} <= ready, "Realtime follows the rows for both")
            with worker(settings, tmp_path):
                await eventually(
                    lambda: any(record["status"] == "completed" for record in changes["owner"]),
                    "the owner sees the job completed",
                )
    records = changes["owner"]
    assert [record["progress"] for record in records] == sorted(record["progress"] for record in records)
    assert {0, 10, 40, 70} & {record["progress"] for record in records}
    assert records[-1]["progress"] == 100
    assert records[-1]["result_url"] == "https://files.example/result.mp4"
    assert changes["stranger"] == changes["anonymous"] == []


async def test_pattern_2_a_backend_may_still_write_its_own_rows(stack: RunningStack, user: User) -> None:
    async with client_of(stack, User("", stack.service_key)) as service:
        jobs = service.table("processing_jobs")
        made: Any = (await jobs.insert({"user_id": user.id, "input_file": "a.wav"}).execute()).data[0]
        assert (made["status"], made["progress"]) == ("queued", 0)
        await jobs.update({"status": "in_progress", "progress": 70}).eq("id", made["id"]).execute()
    async with client_of(stack, user) as own:
        row = await _job(own, made["id"])
    assert row is not None
    assert (row["status"], row["progress"]) == ("in_progress", 70)


async def test_the_row_read_through_rest_equals_the_last_broadcast(
    app: ModuleType, stack: RunningStack, settings: BridgeSettings, user: User, tmp_path: Path
) -> None:
    shown: dict[int, dict[str, Any]] = {}
    with bridge(settings, tmp_path), worker(settings, tmp_path):
        async with client_of(stack, user) as client:
            channel = client.channel(f"import-socials-{user.id}", PRIVATE)
            for event in ("progress", "state"):
                channel.on_broadcast(
                    event, lambda told: shown.update({told["payload"]["seq"]: told["payload"]})
                )
            assert await subscribed(channel) == "SUBSCRIBED"
            run = app.fine.delay(user.id, items=50, pause=0.02).id
            await asyncio.to_thread(final_rows, stack, [run])
            row = await _job(client, run)
            assert row is not None
            await eventually(lambda: row["seq"] in shown, "the last snapshot is broadcast")
    last = shown[row["seq"]]
    same = ("status", "progress", "current", "total", "message", "step", "attempt", "result", "seq")
    assert {name: last[name] for name in same} == {name: row[name] for name in same}
    assert row["result"] == {"items": 50}


async def _job(client: AsyncClient, run: str) -> dict[str, Any] | None:
    try:
        found: Any = (await client.table("processing_jobs").select("*").eq("id", run).execute()).data
    except Exception as error:
        if "permission denied" not in str(error):
            raise
        return None
    return found[0] if found else None
