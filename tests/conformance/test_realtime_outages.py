"""What goes on while Postgres is away, and that everything comes back by itself."""

from __future__ import annotations

import httpx
import pytest

from bridge.local import Stack
from tests.conformance.wire import Wire
from tests.waiting import eventually


@pytest.fixture
def own_stack(supabase):
    if not supabase.is_embedded:
        pytest.skip("a real project's Postgres is not ours to stop")
    with Stack.running() as stack:
        yield stack


async def test_public_channels_live_without_postgres_and_private_ones_return_with_it(own_stack, topic):
    stack, service = own_stack, own_stack.service_key
    async with Wire.open(stack.url, service) as client, httpx.AsyncClient(timeout=30) as http:
        await client.joined(f"{topic}-rows", postgres_changes=[{"event": "*", "schema": "public"}])
        subscribed = await client.system()
        assert subscribed["status"] == "ok"
        ref = await client.joined(topic, broadcast={"self": True})
        stack.stop_part("postgres")
        await client.broadcast(topic, "still", {}, ref)
        assert (await client.event("broadcast")).payload["event"] == "still"
        _, payload = await client.join(f"{topic}-private", private=True)
        assert payload["status"] == "error"
        assert "unable to connect to the project database" in payload["response"]["reason"]
        message = {"topic": topic, "event": "e", "payload": {}, "private": True}
        answer = await http.post(
            f"{stack.url}/realtime/v1/api/broadcast",
            json={"messages": [message]},
            headers={"apikey": service},
        )
        assert answer.status_code == 500
        stack.start_part("postgres")

        async def joins():
            return (await client.join(f"{topic}-private", private=True))[1]["status"] == "ok"

        await eventually(joins, "private channels can be joined again")
        assert await client.system() == subscribed
        config = {"private": True, "broadcast": {"replication_ready": True}}
        await client.joined(f"{topic}-private", **config)
        assert (await client.system())["message"] == "Replication connection established"
