"""Presence: state on joining, differences afterwards."""

from __future__ import annotations

import uuid

import pytest

from tests.conformance.wire import V1, V2


def shown(metas):
    return [
        {name: value for name, value in meta.items() if not name.startswith("phx_")}
        for meta in metas["metas"]
    ]


async def track(client, topic, ref, payload, event="track"):
    body = {"type": "presence", "event": event, "payload": payload}
    return await client.send(f"realtime:{topic}", "presence", body, ref)


@pytest.mark.parametrize("vsn", [V1, V2])
async def test_track_update_and_untrack(wire, topic, vsn):
    async with wire(vsn) as alice, wire() as bob:
        ref = await alice.joined(topic, presence={"key": "alice", "enabled": True})
        state = await alice.event("presence_state")
        assert (state.payload, state.ref, state.join_ref) == ({}, None, ref if vsn == V2 else None)
        await bob.joined(topic)
        sent = await track(alice, topic, ref, {"name": "Al"})
        assert (await alice.reply(sent)).payload == {"status": "ok", "response": {}}
        for client in (alice, bob):
            diff = (await client.event("presence_diff")).payload
            assert diff["leaves"] == {}
            assert shown(diff["joins"]["alice"]) == [{"name": "Al"}]
        reference = diff["joins"]["alice"]["metas"][0]["phx_ref"]
        await track(alice, topic, ref, {"name": "Alice"})
        diff = (await bob.event("presence_diff")).payload
        assert shown(diff["leaves"]["alice"]) == [{"name": "Al"}]
        assert shown(diff["joins"]["alice"]) == [{"name": "Alice"}]
        assert diff["joins"]["alice"]["metas"][0]["phx_ref_prev"] == reference
        await track(alice, topic, ref, {}, "untrack")
        assert shown((await bob.event("presence_diff")).payload["leaves"]["alice"]) == [{"name": "Alice"}]
        await bob.heard_nothing_of("presence_state")


async def test_a_newcomer_gets_everybody_by_key(wire, topic):
    async with wire() as first, wire() as second, wire() as newcomer:
        for client, name in ((first, "phone"), (second, "laptop")):
            ref = await client.joined(topic, presence={"key": "alice", "enabled": True})
            await client.reply(await track(client, topic, ref, {"on": name}))
        await newcomer.joined(topic, presence={"key": "bob", "enabled": True})
        state = (await newcomer.event("presence_state")).payload
        assert sorted(meta["on"] for meta in state["alice"]["metas"]) == ["laptop", "phone"]


async def test_without_a_key_every_member_gets_one_of_its_own(wire, topic):
    async with wire() as client:
        ref = await client.joined(topic, presence={"key": "", "enabled": True})
        await track(client, topic, ref, {})
        (key,) = (await client.event("presence_diff")).payload["joins"]
        assert uuid.UUID(key)


async def test_a_payload_that_is_no_map_and_an_unknown_event_are_errors(wire, topic):
    async with wire() as client:
        ref = await client.joined(topic, presence={"key": "a", "enabled": True})
        reason = {"reason": "Presence track payload must be a map"}
        sent = await track(client, topic, ref, "x")
        assert (await client.reply(sent)).payload == {"status": "error", "response": reason}
        sent = await track(client, topic, ref, {}, "dance")
        assert (await client.reply(sent)).payload == {"status": "error", "response": {}}


async def test_the_sixth_call_in_thirty_seconds_closes_the_channel(wire, topic):
    async with wire() as client:
        ref = await client.joined(topic, presence={"key": "a", "enabled": True})
        for n in range(6):
            await track(client, topic, ref, {"n": n})
        assert (await client.system())["message"] == "Client presence rate limit exceeded"
        assert (await client.event("phx_close")).ref == ref


async def test_private_presence_needs_both_policies(supabase, wire, schema):
    user, hall = str(uuid.uuid4()), f"hall-{uuid.uuid4().hex[:6]}"
    async with wire() as client:
        ref = await client.joined(
            hall, supabase.token(), private=True, presence={"key": "a", "enabled": True}
        )
        assert (await client.reply(await track(client, hall, ref, {}))).payload["status"] == "error"
        own = f"own-{user}"
        ref = await client.joined(
            own, supabase.token(sub=user), private=True, presence={"key": "a", "enabled": True}
        )
        assert (await client.reply(await track(client, own, ref, {}))).payload["status"] == "ok"
        assert (await client.event("presence_diff")).payload["joins"]["a"]
