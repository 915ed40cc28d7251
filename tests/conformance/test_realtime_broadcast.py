"""Broadcasts over the socket and over HTTP, and how each reaches the members of either protocol version."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.wire import V1, V2

VERSIONS = pytest.mark.parametrize("vsn", [V1, V2])
UNAUTHORIZED = {"message": "Unauthorized"}


@VERSIONS
async def test_the_echo_comes_before_the_acknowledgement(wire, topic, vsn):
    async with wire(vsn) as client:
        join_ref = await client.joined(topic, broadcast={"ack": True, "self": True})
        ref = await client.broadcast(topic, "cursor", {"x": 1}, join_ref)
        acknowledged = await client.reply(ref)
        assert acknowledged.payload == {"status": "ok", "response": {}}
        assert [frame.event for frame in client.unread] == ["broadcast"]
        echoed = {"event": "cursor", "payload": {"x": 1}, "type": "broadcast"}
        expected = [None, None, f"realtime:{topic}", "broadcast", echoed]
        if vsn == V1:
            expected = {"topic": f"realtime:{topic}", "event": "broadcast", "ref": None, "payload": echoed}
        assert client.unread[0].raw == expected


async def test_without_self_and_ack_the_sender_hears_nothing(wire, topic):
    async with wire() as sender, wire() as receiver:
        join_ref = await sender.joined(topic)
        await receiver.joined(topic)
        await sender.broadcast(topic, "e", {"x": 1}, join_ref)
        assert (await receiver.event("broadcast")).payload["payload"] == {"x": 1}
        await sender.heard_nothing_of("broadcast")
        await sender.heard_nothing_of("phx_reply")


async def test_the_payload_is_passed_through_as_sent(wire, topic):
    async with wire() as sender, wire(V2) as receiver:
        join_ref = await sender.joined(topic)
        await receiver.joined(topic)
        odd = {"anything": ["goes", None, "\u2028\u0000", 1.5], "emoji": "🙂"}
        await sender.send(f"realtime:{topic}", "broadcast", odd, join_ref)
        assert (await receiver.event("broadcast")).payload == odd


async def test_the_join_ref_of_a_broadcast_may_be_missing(wire, topic):
    async with wire() as client:
        await client.joined(topic, broadcast={"self": True})
        await client.broadcast(topic, "e", {})
        await client.event("broadcast")


async def test_a_binary_push_of_json_reaches_version_2_as_binary_and_version_1_as_text(wire, topic):
    async with wire(V2) as sender, wire(V1) as old:
        join_ref = await sender.joined(topic, broadcast={"ack": True, "self": True})
        await old.joined(topic)
        ref = await sender.push_binary(
            f"realtime:{topic}", "cur", b'{"a":1}', is_json=True, join_ref=join_ref, metadata=b'{"m":1}'
        )
        full = f"realtime:{topic}".encode()
        echo = await sender.event("broadcast")
        assert echo.raw == bytes([4, len(full), 3, 0, 1]) + full + b'cur{"a":1}'
        assert (await sender.reply(ref)).payload == {"status": "ok", "response": {}}
        assert (await old.event("broadcast")).payload == {
            "event": "cur",
            "payload": {"a": 1},
            "type": "broadcast",
        }


async def test_a_binary_push_of_bytes_does_not_reach_version_1(wire, topic):
    async with wire(V2) as sender, wire(V2) as new, wire(V1) as old:
        join_ref = await sender.joined(topic)
        await new.joined(topic)
        await old.joined(topic)
        full = f"realtime:{topic}"
        await sender.push_binary(full, "raw", b"\x00\xff", is_json=False, join_ref=join_ref)
        received = await new.event("broadcast")
        assert received.is_binary
        assert received.payload == {"event": "raw", "payload": b"\x00\xff"}
        await old.heard_nothing_of("broadcast")


async def test_a_text_broadcast_reaches_version_2_as_text(wire, topic):
    async with wire(V2) as sender, wire(V2) as receiver:
        join_ref = await sender.joined(topic)
        await receiver.joined(topic)
        await sender.broadcast(topic, "e", {"x": 1}, join_ref)
        assert not (await receiver.event("broadcast")).is_binary


async def test_too_large_a_payload_is_refused_where_an_answer_is_asked_for(wire, topic):
    async with wire() as client, wire() as receiver:
        join_ref = await client.joined(topic, broadcast={"ack": True, "self": True})
        await receiver.joined(topic)
        ref = await client.broadcast(topic, "e", {"x": "y" * 3_001_000}, join_ref)
        assert (await client.reply(ref)).payload == {"status": "error", "response": "payload_size_exceeded"}
        await receiver.heard_nothing_of("broadcast")


@VERSIONS
async def test_a_batch_over_http_reaches_both_versions_as_text(wire, rest, topic, vsn):
    async with wire(vsn) as client:
        await client.joined(topic)
        messages = [
            {"topic": topic, "event": "a", "payload": {"n": 1}, "private": False},
            {"topic": topic, "event": "b", "payload": {"n": 2}, "id": "the-id"},
        ]
        answer = await rest.post("/api/broadcast", json={"messages": messages})
        assert (answer.status_code, answer.content) == (202, b"")
        assert {"x-rate-limit", "x-rate-limit-remaining", "x-rate-rolling"} <= set(answer.headers)
        first, second = await client.event("broadcast"), await client.event("broadcast")
        assert first.payload == {"event": "a", "payload": {"n": 1}, "type": "broadcast"}
        assert second.payload["meta"] == {"id": "the-id"}
        assert not first.is_binary


async def test_a_topic_with_the_prefix_is_another_topic(wire, rest, topic):
    async with wire() as client:
        await client.joined(topic)
        for name in (f"realtime:{topic}", topic):
            message = {"topic": name, "event": name, "payload": {}}
            assert (await rest.post("/api/broadcast", json={"messages": [message]})).status_code == 202
        assert (await client.event("broadcast")).payload["event"] == topic
        await client.heard_nothing_of("broadcast")


async def test_the_single_endpoint_reaches_version_2_as_binary(wire, rest, topic):
    async with wire(V2) as new, wire(V1) as old:
        await new.joined(topic)
        await old.joined(topic)
        answer = await rest.post(f"/api/broadcast/{topic}/events/hello", json={"a": 1})
        assert (answer.status_code, answer.content) == (202, b"")
        received = await new.event("broadcast")
        assert received.is_binary
        assert received.payload == {"event": "hello", "payload": {"a": 1}}
        assert (await old.event("broadcast")).payload == {
            "event": "hello",
            "payload": {"a": 1},
            "type": "broadcast",
        }
        octets = {"content-type": "application/octet-stream"}
        answer = await rest.post(f"/api/broadcast/{topic}/events/raw", content=b"\x01\x02", headers=octets)
        assert answer.status_code == 202
        assert (await new.event("broadcast")).payload == {"event": "raw", "payload": b"\x01\x02"}


async def test_bad_batches_are_refused_whole_with_a_list_by_position(rest):
    blank, invalid = ["can't be blank"], ["is invalid"]
    good = {"topic": "t", "event": "e", "payload": {}}
    cases = [
        ({}, blank),
        ([], blank),
        ({"messages": []}, blank),
        ({"messages": "x"}, invalid),
        ({"messages": [{}]}, [{"event": blank, "payload": blank, "topic": blank}]),
        ({"messages": [good, {**good, "payload": "x"}]}, [{}, {"payload": invalid}]),
        ({"messages": [{**good, "topic": 1, "private": "maybe"}]}, [{"topic": invalid, "private": invalid}]),
        ({"messages": [{**good, "topic": "", "event": "  "}]}, [{"topic": blank, "event": blank}]),
    ]
    for body, expected in cases:
        answer = await rest.post("/api/broadcast", json=body)
        assert (answer.status_code, answer.json()) == (422, {"errors": {"messages": expected}}), body


async def test_a_batch_that_is_no_json_is_blank_and_broken_json_is_a_bad_request(rest):
    text = {"content-type": "text/plain"}
    answer = await rest.post("/api/broadcast", content=b'{"messages": []}', headers=text)
    assert (answer.status_code, answer.json()) == (422, {"errors": {"messages": ["can't be blank"]}})
    answer = await rest.post("/api/broadcast", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.text) == (400, "Bad Request")


async def test_too_large_payloads_and_bodies_over_http(rest, topic):
    huge = {"x": "y" * 3_001_000}
    too_large = ["Payload size exceeds tenant limit"]
    message = {"topic": topic, "event": "e", "payload": huge}
    answer = await rest.post("/api/broadcast", json={"messages": [message]})
    assert (answer.status_code, answer.json()) == (422, {"errors": {"messages": [{"payload": too_large}]}})
    answer = await rest.post(f"/api/broadcast/{topic}/events/e", json=huge)
    assert (answer.status_code, answer.json()) == (422, {"errors": {"payload": too_large}})
    answer = await rest.post(
        "/api/broadcast", json={"messages": [{**message, "payload": {"x": "y" * 8_100_000}}]}
    )
    assert (answer.status_code, answer.text) == (413, "Request Entity Too Large")


async def test_other_methods_and_other_media_types(rest, topic):
    assert (await rest.get("/api/broadcast")).status_code == 404
    assert (await rest.put("/api/broadcast", json={})).status_code == 404
    assert (await rest.post("/api/broadcast", json={}, headers={"accept": "text/html"})).status_code == 406
    single = f"/api/broadcast/{topic}/events/e"
    answer = await rest.post(single, content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json() == {
        "error": "Unsupported Media Type. Use application/json or application/octet-stream"
    }


async def test_http_without_a_usable_token_is_unauthorized(supabase, topic):
    good = {"messages": [{"topic": topic, "event": "e", "payload": {}}]}
    key = supabase.anon_key
    cases = [
        ({}, 401),
        ({"apikey": "garbage"}, 401),
        ({"Authorization": f"Bearer {supabase.token(expires_in=-5)}", "apikey": key}, 401),
        ({"Authorization": f"Bearer {key}"}, 202),
        ({"apikey": key}, 202),
        ({"Authorization": f"bearer {key}", "apikey": "garbage"}, 202),
    ]
    async with httpx.AsyncClient() as client:
        for headers, status in cases:
            for path in ("/api/broadcast", f"/api/broadcast/{topic}/events/e"):
                answer = await client.post(f"{supabase.url}/realtime/v1{path}", json=good, headers=headers)
                assert answer.status_code == status, headers
                assert status == 202 or answer.json() == UNAUTHORIZED
        answer = await client.post(
            f"{supabase.url}/realtime/v1/api/broadcast", json=good, headers={"Authorization": "nospace"}
        )
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
