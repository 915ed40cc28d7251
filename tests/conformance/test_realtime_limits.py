"""The tenant's limits and the words that tell of them. Only against the stand-in, whose limits are ours."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from bridge.local.realtime import TenantLimits
from tests.conformance.wire import V1, V2
from tests.waiting import eventually


async def refused_handshake(server, key):
    with pytest.raises(InvalidStatus) as refusal:
        async with server.open(key):
            pass
    return refusal.value.response.status_code, refusal.value.response.body


@pytest.fixture
def send(supabase):
    async def post(server, count=1, topic="t", single=False):
        headers = {"Authorization": f"Bearer {supabase.service_key}"}
        messages = [{"topic": topic, "event": "e", "payload": {}}] * count
        path = f"/api/broadcast/{topic}/events/e" if single else "/api/broadcast"
        async with httpx.AsyncClient() as client:
            return await client.post(
                f"{server.url}/realtime/v1{path}", json={"messages": messages}, headers=headers
            )

    return post


async def test_a_suspended_tenant_is_forbidden(supabase, tenant, send):
    async with tenant(TenantLimits(suspended=True)) as server:
        status, body = await refused_handshake(server, supabase.anon_key)
        assert (status, body) == (403, b'{"error": "Realtime was disabled for this tenant"}')
        for single in (False, True):
            answer = await send(server, single=single)
            assert (answer.status_code, answer.json()) == (403, {"message": "Tenant is suspended"})


async def test_too_many_users(supabase, tenant, topic):
    async with tenant(TenantLimits(users=1)) as server, server.open(supabase.anon_key) as late:
        async with server.open(supabase.anon_key) as first:
            await first.joined(topic)
            await first.joined(f"{topic}-2")
            status, body = await refused_handshake(server, supabase.anon_key)
            assert (status, body) == (429, b'{"error": "Too many connected users"}')
            _, payload = await late.join(topic)
            reason = "ConnectionRateLimitReached: Too many connected users"
            assert payload == {"status": "error", "response": {"reason": reason}}

        async def may_join():
            return (await late.join(topic))[1]["status"] == "ok"

        await eventually(may_join, "the first user is gone")


async def test_too_many_channels(supabase, tenant, topic):
    async with (
        tenant(TenantLimits(channels_per_client=2)) as server,
        server.open(supabase.anon_key) as client,
    ):
        await client.joined(f"{topic}-1")
        second = await client.joined(f"{topic}-2")
        _, payload = await client.join(f"{topic}-3")
        assert payload["response"] == {"reason": "ChannelRateLimitReached: Too many channels"}
        await client.send(f"realtime:{topic}-2", "phx_leave", {}, second)
        await client.event("phx_close")
        await client.joined(f"{topic}-3")


async def test_too_many_joins_cost_the_socket(supabase, tenant, topic):
    async with tenant(TenantLimits(joins_per_second=3)) as server, server.open(supabase.anon_key) as client:

        async def refusal():
            _, payload = await client.join(topic)
            return payload["status"] == "error" and payload["response"]

        reason = "ClientJoinRateLimitReached: Too many joins per second"
        assert await eventually(refusal, "joins are refused", every=0) == {"reason": reason}
        await client.ws.wait_closed()
        assert client.ws.close_code == 1001
        status, body = await refused_handshake(server, supabase.anon_key)
        assert (status, body) == (429, b'{"error": "Too many joins per second"}')


async def test_private_only(supabase, tenant, topic):
    async with tenant(TenantLimits(private_only=True)) as server, server.open(supabase.anon_key) as client:
        _, payload = await client.join(topic)
        reason = "PrivateOnly: This project only allows private channels"
        assert payload["response"] == {"reason": reason}


async def test_a_batch_larger_than_what_is_left_must_be_split(tenant, send):
    async with tenant(TenantLimits(events_per_second=100)) as server:
        answer = await send(server, count=101)
        message = "Too many messages to broadcast, please reduce the batch size"
        assert (answer.status_code, answer.json()) == (429, {"message": message})
        assert (await send(server, count=100)).status_code == 202


@pytest.mark.parametrize("vsn", [V1, V2])
async def test_over_the_rate_senders_are_refused_and_receivers_thrown_off(supabase, tenant, send, topic, vsn):
    exceeded = {"message": "You have exceeded your rate limit"}
    async with tenant(TenantLimits(events_per_second=10)) as server, AsyncExitStack() as sockets:
        clients = [await sockets.enter_async_context(server.open(supabase.anon_key, vsn)) for _ in range(20)]
        for client in clients:
            await client.joined(topic)
        # One request, so that no second ends half way: 10 sent and 200 delivered are enough for 20 seconds.
        assert (await send(server, count=10, topic=topic)).status_code == 202

        async def refusals():
            answers = [await send(server, topic=topic, single=single) for single in (False, True)]
            return [answer.json() for answer in answers if answer.status_code == 429]

        async def all_refused():
            return await refusals() == [exceeded, exceeded]

        await eventually(all_refused, "the rate is exceeded")
        await clients[0].broadcast(topic, "one too many", {})
        await clients[0].heard_nothing_of("system")
        for receiver in clients[1:]:
            system = await receiver.system()
            assert (system["message"], system["status"]) == ("Too many messages per second", "error")
            await receiver.event("phx_close")


async def test_payloads_over_the_plans_size(supabase, tenant, topic):
    async with tenant(TenantLimits(payload_kb=1)) as server, server.open(supabase.anon_key) as client:
        ref = await client.joined(topic, broadcast={"ack": True})
        sent = await client.broadcast(topic, "e", {"x": "y" * 1_600}, ref)
        assert (await client.reply(sent)).payload == {"status": "error", "response": "payload_size_exceeded"}
        sent = await client.broadcast(topic, "e", {"x": "y" * 1_200}, ref)
        assert (await client.reply(sent)).payload["status"] == "ok"


async def test_an_idle_socket_is_closed_with_1000_and_a_busy_one_stays(supabase, tenant):
    limits = TenantLimits(idle_timeout=timedelta(milliseconds=300))
    async with tenant(limits) as server, server.open(supabase.anon_key) as client:
        for _ in range(3):
            await client.heard_nothing_of("anything")
        await client.ws.wait_closed()
        assert client.ws.close_code == 1000


async def test_refusals_are_held_back_as_long_as_asked(supabase, tenant):
    held = timedelta(milliseconds=400)
    async with tenant(TenantLimits(join_refusal_delay=held, error_delay=held)) as server:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{server.url}/realtime/v1/websocket")
        assert answer.elapsed >= held
        async with server.open(supabase.anon_key) as client:
            ref = await client.send("realtime:", "phx_join", {"config": {}})
            assert (await client.reply(ref)).payload["status"] == "error"


async def test_stopping_closes_every_socket_with_1012(supabase, tenant, topic):
    async with tenant(TenantLimits()) as server, server.open(supabase.anon_key) as client:
        await client.joined(topic)
        await server.realtime.stop()
        await client.ws.wait_closed()
        assert client.ws.close_code == 1012
        await server.realtime.start()
        async with server.open(supabase.anon_key) as again:
            await again.joined(topic)


async def test_new_limits_disconnect_everybody(supabase, tenant, topic):
    async with tenant(TenantLimits()) as server, server.open(supabase.anon_key) as client:
        await client.joined(topic)
        await server.realtime.reload(TenantLimits(suspended=True))
        system = await client.system()
        assert (system["message"], system["status"]) == ("Server requested disconnect", "ok")
        await client.ws.wait_closed()
        assert client.ws.close_code == 1012
        assert (await refused_handshake(server, supabase.anon_key))[0] == 403
