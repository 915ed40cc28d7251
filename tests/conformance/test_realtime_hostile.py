"""Clients that misbehave harm nobody but themselves."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.client import connect

from tests.conformance.wire import V1, V2


async def test_a_client_that_reads_nothing_does_not_delay_the_others(supabase, wire, topic):
    address = f"{supabase.url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={supabase.anon_key}"
    async with (
        connect(address, max_queue=1, close_timeout=0.1) as stalled,
        wire() as sender,
        wire() as reader,
    ):
        join = {"topic": f"realtime:{topic}", "event": "phx_join", "payload": {"config": {}}, "ref": "1"}
        await stalled.send(json.dumps(join))
        await stalled.recv()
        join_ref = await sender.joined(topic)
        await reader.joined(topic)
        for n in range(60):
            await sender.broadcast(topic, "e", {"n": n, "x": "y" * 400_000}, join_ref)
            assert (await reader.event("broadcast")).payload["payload"]["n"] == n


@pytest.mark.parametrize("name", ["nul-\x00", "quote'\"\\", "%s {} $1", "x" * 300, "\u202e🙂", "a:b:c", " "])
async def test_hostile_topic_names_are_names_like_any_other(supabase, wire, schema, name):
    async with wire(V1) as old, wire(V2) as new:
        await new.joined(name)
        join_ref = await old.joined(name, broadcast={"self": True})
        await old.broadcast(name, "e'\"\x00", {"n": 1}, join_ref)
        for client in (old, new):
            assert (await client.event("broadcast")).payload["event"] == "e'\"\x00"
        _, payload = await old.join(name, supabase.token(), private=True)
        assert payload["response"]["reason"].startswith("Unauthorized")


async def test_hostile_subscriptions_are_refused_and_the_socket_lives(supabase, wire, database, topic):
    table = {"schema": "public", "table": "conformance_plain"}
    bindings = [
        {"schema": "public", "table": "x'; drop table conformance_plain; --"},
        {**table, "filter": "title=eq.\x00"},
        {**table, "filter": "title=match.("},
        {**table, "filter": "id'; select 1; --=eq.1"},
        {"schema": "pg_catalog", "table": "pg_authid"},
    ]
    async with wire() as client:
        for binding in bindings:
            await client.joined(topic, postgres_changes=[binding])
            assert (await client.system())["status"] == "error", binding
        _, payload = await client.join(topic, postgres_changes=["x", 1])
        assert payload["status"] == "error"
        await client.joined(topic, postgres_changes=[{**table, "event": "*"}])
        assert (await client.system())["status"] == "ok"


@pytest.mark.parametrize("vsn", [V1, V2])
async def test_numbers_that_are_no_json_are_malformed(wire, topic, vsn):
    async with wire(vsn) as client:
        join_ref = await client.joined(topic, broadcast={"self": True})
        for number in ("NaN", "Infinity", "1e999", "9" * 5_000):
            text = f'[null,"1","realtime:{topic}","broadcast",{{"n":{number}}}]'
            if vsn == V1:
                text = (
                    f'{{"topic":"realtime:{topic}","event":"broadcast","payload":{{"n":{number}}},"ref":"1"}}'
                )
            await client.ws.send(text)
        await client.broadcast(topic, "good", {}, join_ref)
        assert (await client.event("broadcast")).payload["event"] == "good"
