"""Private channels: the policies on realtime.messages decide, token refresh and expiry included."""

from __future__ import annotations

import uuid

import httpx
import pytest

from tests.conformance.wire import V1, V2

VERSIONS = pytest.mark.parametrize("vsn", [V1, V2])


@pytest.fixture
def user() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def own(user, schema) -> str:
    """A channel that its user may read and write."""
    return f"own-{user}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def hall(schema) -> str:
    """A channel that every signed-in user may read, and nobody but the service write."""
    return f"hall-{uuid.uuid4().hex[:6]}"


def no_permission(topic):
    return f"You do not have permissions to read from this Channel topic: {topic}"


@VERSIONS
async def test_the_owner_joins_sends_and_hears(supabase, wire, user, own, vsn):
    token = supabase.token(sub=user)
    async with wire(vsn) as client:
        ref = await client.joined(own, token, private=True, broadcast={"self": True, "ack": True})
        sent = await client.broadcast(own, "e", {"x": 1}, ref)
        assert (await client.event("broadcast")).payload["payload"] == {"x": 1}
        assert (await client.reply(sent)).payload["status"] == "ok"


async def test_strangers_anonymous_clients_and_unknown_roles_join_nothing(supabase, wire, own):
    refused = {"status": "error", "response": {"reason": f"Unauthorized: {no_permission(own)}"}}
    async with wire() as client:
        for token in (supabase.token(), supabase.anon_key, supabase.token(role="nobody_knows")):
            _, payload = await client.join(own, token, private=True)
            assert payload == refused


async def test_a_forbidden_broadcast_is_dropped_without_an_answer(supabase, wire, hall):
    async with wire() as sender, wire() as receiver:
        join_ref = await sender.joined(
            hall, supabase.token(), private=True, broadcast={"ack": True, "self": True}
        )
        await receiver.joined(hall, supabase.token(), private=True)
        await sender.broadcast(hall, "e", {}, join_ref)
        await sender.heard_nothing_of("phx_reply")
        await receiver.heard_nothing_of("broadcast")


async def test_public_and_private_channels_of_one_name_are_separate(supabase, wire, rest, hall):
    async with wire() as public, wire() as private:
        await public.joined(hall)
        await private.joined(hall, supabase.token(), private=True)
        for is_private in (True, False):
            message = {"topic": hall, "event": f"private {is_private}", "payload": {}, "private": is_private}
            assert (await rest.post("/api/broadcast", json={"messages": [message]})).status_code == 202
        assert (await public.event("broadcast")).payload["event"] == "private False"
        assert (await private.event("broadcast")).payload["event"] == "private True"
        await public.heard_nothing_of("broadcast")
        await private.heard_nothing_of("broadcast")


async def test_http_drops_what_the_sender_may_not_send_and_says_202(supabase, wire, user, own, hall):
    token = supabase.token(sub=user)
    async with wire() as client, httpx.AsyncClient() as http:
        for topic in (own, hall):
            await client.joined(topic, token, private=True)
        messages = [{"topic": t, "event": t, "payload": {}, "private": True} for t in (hall, own)]
        headers = {"apikey": supabase.anon_key, "Authorization": f"Bearer {token}"}
        answer = await http.post(
            f"{supabase.url}/realtime/v1/api/broadcast", json={"messages": messages}, headers=headers
        )
        assert answer.status_code == 202
        assert (await client.event("broadcast")).payload["event"] == own
        await client.heard_nothing_of("broadcast")
        single = f"{supabase.url}/realtime/v1/api/broadcast/{hall}/events/e?private=true"
        answer = await http.post(single, json={}, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"message": "Unauthorized"})
        answer = await http.post(single.replace(hall, own), json={"a": 1}, headers=headers)
        assert answer.status_code == 202
        assert (await client.event("broadcast")).payload["payload"] == {"a": 1}


@VERSIONS
async def test_a_good_refresh_is_silent_and_prolongs_the_channel(supabase, wire, user, own, topic, vsn):
    short = supabase.token(sub=user, expires_in=4)
    async with wire(vsn) as client:
        ref = await client.joined(own, short, private=True, broadcast={"self": True})
        await client.joined(topic, short)
        for token in (supabase.token(sub=user), None, "sb_publishable_x"):
            await client.send(f"realtime:{own}", "access_token", {"access_token": token}, ref)
        await client.heard_nothing_of("phx_reply")
        expired = await client.event("system")
        assert expired.topic == f"realtime:{topic}"
        await client.broadcast(own, "e", {}, ref)
        await client.event("broadcast")
        await client.heard_nothing_of("system")


@VERSIONS
async def test_a_bad_refresh_closes_the_channel_and_leaves_the_socket(supabase, wire, user, own, vsn):
    cases = {
        "garbage": "The token provided is not a valid JWT",
        supabase.token(sub=user)[:-4] + "AAAA": ":signature_error",
        supabase.token(): no_permission(own),
        supabase.token(sub=user, expires_in=-30): "Token has expired 3",
    }
    async with wire(vsn) as client:
        for bad, message in cases.items():
            ref = await client.joined(own, supabase.token(sub=user), private=True)
            await client.send(f"realtime:{own}", "access_token", {"access_token": bad}, ref)
            system = await client.event("system")
            assert system.payload["message"].startswith(message)
            assert {**system.payload, "message": ""} == {
                "message": "", "status": "error", "extension": "system", "channel": own
            }  # fmt: skip
            closed = await client.event("phx_close")
            assert (closed.ref, closed.payload) == (ref, {})
        await client.joined(own, supabase.token(sub=user), private=True)


@pytest.mark.parametrize("private", [True, False])
async def test_a_token_that_expires_closes_the_channel(supabase, wire, user, own, private):
    async with wire() as client:
        await client.joined(own, supabase.token(sub=user, expires_in=4), private=private)
        assert (await client.system())["message"] == "Token has expired 0 seconds ago"
        await client.event("phx_close")


async def test_a_refresh_that_may_no_longer_read_ends_the_channel(supabase, wire, hall):
    async with wire() as client:
        ref = await client.joined(hall, supabase.token(), private=True)
        await client.send(f"realtime:{hall}", "access_token", {"access_token": supabase.anon_key}, ref)
        assert (await client.system())["message"] == no_permission(hall)
