"""Handshake, heartbeat, join, leave and malformed frames, on both protocol versions."""

from __future__ import annotations

import contextlib
import json

import httpx
import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conformance.wire import V1, V2

VERSIONS = pytest.mark.parametrize("vsn", [V1, V2])
DEFAULTS = {
    "broadcast": {"ack": True, "self": True},
    "presence": {"key": "", "enabled": False},
    "private": False,
}


async def handshake(url, **params):
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.get(f"{url}/realtime/v1/websocket", params=params, headers=headers)


async def test_a_handshake_without_a_usable_key_is_refused_with_its_reason(supabase):
    wrong_secret = jwt.encode(
        {"role": "anon", "exp": 4102444800}, "another-secret-of-more-than-32-characters!"
    )
    cases = {
        "garbage": "The token provided is not a valid JWT",
        wrong_secret: "Failed to validate JWT signature",
        supabase.token(expires_in=-30): "Token has expired",
        jwt.encode({"sub": "x"}, supabase.jwt_secret): "Fields `role` and `exp` are required in JWT",
    }
    for key, error in cases.items():
        answer = await handshake(supabase.url, apikey=key)
        assert (answer.status_code, answer.json()) == (401, {"error": error})


async def test_a_handshake_without_a_key_is_refused(supabase):
    answer = await handshake(supabase.url)
    assert (answer.status_code, answer.json()) == (401, {"error": "API key is missing"})


async def test_an_unknown_protocol_version_is_refused(supabase):
    answer = await handshake(supabase.url, apikey=supabase.anon_key, vsn="9.9.9")
    assert (answer.status_code, answer.content) == (403, b"")


async def test_version_1_heartbeat_join_and_leave_frames(wire, topic):
    full = f"realtime:{topic}"
    async with wire(V1) as client:
        await client.send("phoenix", "heartbeat", {}, ref="1")
        reply = await client.reply("1")
        assert reply.raw == {
            "topic": "phoenix", "event": "phx_reply", "ref": "1", "payload": {"status": "ok", "response": {}}
        }  # fmt: skip
        await client.send(full, "phx_join", {"config": {**DEFAULTS, "postgres_changes": []}}, "2", "2")
        assert (await client.reply("2")).raw == {
            "topic": full, "event": "phx_reply", "ref": "2",
            "payload": {"status": "ok", "response": {"postgres_changes": []}},
        }  # fmt: skip
        await client.send(full, "phx_leave", {}, "2", "3")
        assert (await client.reply("3")).payload == {"status": "ok", "response": {}}
        closed = await client.event("phx_close")
        assert closed.raw == {"topic": full, "event": "phx_close", "ref": "2", "payload": {}}


async def test_version_2_heartbeat_join_and_leave_frames(wire, topic):
    full = f"realtime:{topic}"
    async with wire(V2) as client:
        await client.send("phoenix", "heartbeat", {}, ref="1")
        assert (await client.reply("1")).raw == [
            None,
            "1",
            "phoenix",
            "phx_reply",
            {"status": "ok", "response": {}},
        ]
        await client.send(full, "phx_join", {"config": DEFAULTS}, "2", "2")
        joined = {"status": "ok", "response": {"postgres_changes": []}}
        assert (await client.reply("2")).raw == ["2", "2", full, "phx_reply", joined]
        await client.send(full, "phx_leave", {}, "2", "3")
        assert (await client.reply("3")).raw == [
            "2",
            "3",
            full,
            "phx_reply",
            {"status": "ok", "response": {}},
        ]
        assert (await client.event("phx_close")).raw == ["2", "2", full, "phx_close", {}]


@VERSIONS
async def test_leaving_a_topic_that_was_not_joined_is_fine(wire, topic, vsn):
    async with wire(vsn) as client:
        ref = await client.send(f"realtime:{topic}", "phx_leave", {})
        assert (await client.reply(ref)).payload == {"status": "ok", "response": {}}


@VERSIONS
async def test_a_message_to_a_topic_that_was_not_joined_is_unmatched(wire, topic, vsn):
    unmatched = {"status": "error", "response": {"reason": "unmatched topic"}}
    async with wire(vsn) as client:
        ref = await client.broadcast(topic, "e", {})
        assert (await client.reply(ref)).payload == unmatched
        ref = await client.send("elsewhere", "phx_join", {"config": {}})
        assert (await client.reply(ref)).payload == unmatched


@VERSIONS
async def test_a_second_join_closes_the_first(wire, topic, vsn):
    async with wire(vsn) as client:
        first = await client.joined(topic)
        second = await client.joined(topic, broadcast={"ack": True})
        closed = await client.event("phx_close")
        assert closed.ref == first
        ref = await client.broadcast(topic, "e", {}, second)
        assert (await client.reply(ref)).payload["status"] == "ok"


@VERSIONS
async def test_a_join_without_a_topic_name_is_refused(wire, vsn):
    async with wire(vsn) as client:
        _, payload = await client.join("")
        reason = "TopicNameRequired: You must provide a topic name"
        assert payload == {"status": "error", "response": {"reason": reason}}


@VERSIONS
async def test_a_join_whose_config_is_no_map_is_refused(wire, topic, vsn):
    async with wire(vsn) as client:
        ref = await client.send(f"realtime:{topic}", "phx_join", {"config": "x"}, "1")
        reason = "UnknownErrorOnChannel: no function clause matching in Access.get/3"
        assert (await client.reply(ref)).payload == {"status": "error", "response": {"reason": reason}}


async def test_a_join_with_a_bad_token_is_refused_and_the_socket_lives(supabase, wire, topic):
    wrong_secret = jwt.encode(
        {"role": "anon", "exp": 4102444800}, "another-secret-of-more-than-32-characters!"
    )
    cases = {
        "garbage": "MalformedJWT: The token provided is not a valid JWT",
        wrong_secret: "JwtSignatureError: Failed to validate JWT signature",
        jwt.encode({"exp": 4102444800}, supabase.jwt_secret):
            "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
    }  # fmt: skip
    async with wire() as client:
        for token, reason in cases.items():
            _, payload = await client.join(topic, token)
            assert payload == {"status": "error", "response": {"reason": reason}}
        _, payload = await client.join(topic, supabase.token(expires_in=-30))
        assert payload["response"]["reason"].startswith("InvalidJWTToken: Token has expired 3")
        await client.joined(topic, "sb_publishable_anything")


@VERSIONS
async def test_malformed_frames_are_ignored_and_channels_stay(wire, topic, vsn):
    async with wire(vsn) as client:
        join_ref = await client.joined(topic, broadcast={"self": True})
        for bad in (
            "{",
            "[]",
            "null",
            '"x"',
            "[1,2,3,4,5]",
            json.dumps({"topic": 1}),
            b"",
            b"\x03\x01",
            b"\xff" * 20,
        ):
            await client.ws.send(bad)
        await client.broadcast(topic, "still", {"here": 1}, join_ref)
        assert (await client.event("broadcast")).payload["event"] == "still"


@VERSIONS
async def test_an_unknown_event_is_ignored(wire, topic, vsn):
    async with wire(vsn) as client:
        join_ref = await client.joined(topic)
        await client.send(f"realtime:{topic}", "nonsense", {"a": 1}, join_ref)
        await client.heard_nothing_of("phx_reply")


async def test_a_frame_of_more_than_5_mb_closes_the_socket_with_1009(wire):
    async with wire() as client:
        with contextlib.suppress(ConnectionClosed):
            await client.ws.send("x" * 5_000_001)
        await client.ws.wait_closed()
        assert client.ws.close_code == 1009


async def test_closing_the_socket_ends_its_channels(wire, topic):
    async with wire() as watching:
        await watching.joined(topic, presence={"key": "w", "enabled": True})
        async with wire() as leaving:
            ref = await leaving.joined(topic, presence={"key": "gone", "enabled": True})
            await leaving.send(f"realtime:{topic}", "presence", {"event": "track", "payload": {}}, ref)
            assert (await watching.event("presence_diff")).payload["joins"]["gone"]
        assert (await watching.event("presence_diff")).payload["leaves"]["gone"]
