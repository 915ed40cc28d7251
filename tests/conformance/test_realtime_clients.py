"""The official Python client, as users write it."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager

from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from tests.waiting import eventually


@asynccontextmanager
async def connected(supabase, token=None):
    client = AsyncRealtimeClient(f"{supabase.url}/realtime/v1", supabase.anon_key)
    await client.connect()
    if token is not None:
        await client.set_auth(token)
    try:
        yield client
    finally:
        await client.close()


async def subscribed(channel):
    """The state that subscribing ends in, and its error."""
    outcome: asyncio.Future = asyncio.get_running_loop().create_future()

    def tell(state, error):
        if not outcome.done():
            outcome.set_result((state, error))

    await channel.subscribe(tell)
    return await asyncio.wait_for(outcome, 15)


def private(client, topic, **broadcast):
    config = {
        "broadcast": {"self": True, **broadcast},
        "presence": {"key": "", "enabled": False},
        "private": True,
    }
    return client.channel(topic, {"config": config})


async def test_a_user_hears_his_private_channel_and_a_stranger_cannot_subscribe(supabase, schema, rest):
    user = str(uuid.uuid4())
    topic, heard = f"own-{user}", []
    async with (
        connected(supabase, supabase.token(sub=user)) as owner,
        connected(supabase, supabase.token()) as other,
    ):
        channel = private(owner, topic).on_broadcast("progress", heard.append)
        assert await subscribed(channel) == (RealtimeSubscribeStates.SUBSCRIBED, None)
        state, error = await subscribed(private(other, topic))
        assert state == RealtimeSubscribeStates.CHANNEL_ERROR
        assert "You do not have permissions to read from this Channel topic" in str(error)
        message = {"topic": topic, "event": "progress", "payload": {"message": "1 of 10"}, "private": True}
        assert (await rest.post("/api/broadcast", json={"messages": [message]})).status_code == 202
        await eventually(lambda: heard, "the progress is heard")
        assert heard[0]["payload"] == {"message": "1 of 10"}
        await channel.send_broadcast("progress", {"message": "from the client"})
        await eventually(lambda: len(heard) == 2, "the client's own broadcast is heard")


async def test_changes_of_ones_own_rows_are_heard(supabase, database):
    user, heard, ready = str(uuid.uuid4()), [], asyncio.Event()
    async with connected(supabase, supabase.token(sub=user)) as client:
        channel = client.channel(f"notes-{user}").on_postgres_changes(
            RealtimePostgresChangesListenEvent.Insert,
            heard.append,
            table="conformance_notes",
            schema="public",
            filter="n=gte.1",
        )
        channel.on_system(lambda _: ready.set())
        assert (await subscribed(channel))[0] == RealtimeSubscribeStates.SUBSCRIBED
        await asyncio.wait_for(ready.wait(), 15)
        for owner, n in ((user, 0), (str(uuid.uuid4()), 1), (user, 1)):
            await database.execute(
                "insert into public.conformance_notes (owner, title, n) values (%s, 'note', %s)", [owner, n]
            )
        await eventually(lambda: heard, "the insert is heard")
        assert [(h["data"]["record"]["owner"], h["data"]["record"]["n"]) for h in heard] == [(user, 1)]


async def test_presence_comes_and_goes(supabase):
    topic = f"room-{uuid.uuid4().hex[:8]}"
    async with connected(supabase) as alice, connected(supabase) as bob:
        states = {}
        for name, client in (("alice", alice), ("bob", bob)):
            config = {"broadcast": {}, "presence": {"key": name, "enabled": True}, "private": False}
            channel = client.channel(topic, {"config": config})
            channel.on_presence_sync(
                lambda name=name, channel=channel: states.update({name: channel.presence_state()})
            )
            assert (await subscribed(channel))[0] == RealtimeSubscribeStates.SUBSCRIBED
            await channel.track({"name": name})
        await eventually(lambda: set(states.get("alice", ())) == {"alice", "bob"}, "alice sees both")
        await bob.close()
        await eventually(lambda: set(states["alice"]) == {"alice"}, "alice sees bob leave")
