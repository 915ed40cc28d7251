"""What the bridge makes of every answer that Supabase's REST API and Realtime can give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from bridge.broadcast import RateExceeded, RealtimeBroadcaster
from bridge.errors import (
    BatchRefused,
    BatchTooLarge,
    KeyRefused,
    MessagesRefused,
    SchemaMissing,
    SupabaseUnavailable,
)
from bridge.events import LogLine, Patch
from bridge.messages import Message
from bridge.rows import SupabaseRows
from bridge.sender import Sender
from bridge.settings import BroadcastSettings, SupabaseSettings
from tests.waiting import eventually

JWT = "eyJ.service.role"
Answer = Callable[[web.Request, Any], web.Response]


@asynccontextmanager
async def supabase(answer: Answer, key: str = JWT) -> AsyncIterator[SupabaseSettings]:
    """A server that answers every request with `answer(request, its JSON)`."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request, await request.json())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield SupabaseSettings(url=f"http://127.0.0.1:{port}", key=key)  # type: ignore[arg-type]
    finally:
        await runner.cleanup()


def status(code: int, body: Any = None) -> Answer:
    return lambda _request, _json: web.json_response(body, status=code)


def message(run: str, event: str = "progress", number: int = 1, payload: bytes = b"{}") -> Message:
    return Message(run, "c", event, number, payload)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(401, {"message": "Invalid API key"}), KeyRefused),
        (status(403, {"code": "42501", "message": "permission denied for function"}), KeyRefused),
        (status(404, {"code": "PGRST202", "message": "no function"}), SchemaMissing),
        (status(404, "nothing here"), SupabaseUnavailable),
        (status(400, {"code": "22P02", "message": 'invalid input syntax: "hunter2"'}), BatchRefused),
        (status(400, {"code": "23514", "message": "violates check constraint"}), BatchRefused),
        (status(400, {"code": "PGRST100", "message": "parse error"}), SupabaseUnavailable),
        (status(413), BatchTooLarge),
        (status(429), SupabaseUnavailable),
        (status(500, {"code": "57014", "message": "canceling statement"}), SupabaseUnavailable),
        (status(503, {"code": "PGRST002"}), SupabaseUnavailable),
        (lambda _request, _json: web.Response(status=502, text="<html>"), SupabaseUnavailable),
        (lambda _request, _json: web.Response(text="<html>"), SupabaseUnavailable),
    ],
)
async def test_each_answer_of_rest_is_one_clear_error(answer: Answer, error: type[Exception]) -> None:
    async with supabase(answer) as settings:
        rows = SupabaseRows(settings)
        with pytest.raises(error) as raised:
            await rows.mirror([Patch("r", 1, 0.0)])
        await rows.close()
    assert JWT not in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_an_older_schema_is_told_with_the_command_that_helps() -> None:
    async with supabase(status(200, 0)) as settings:
        rows = SupabaseRows(settings)
        with pytest.raises(
            SchemaMissing, match=r"version 0 .* needs 2; apply .*supabase --workdir .* db push"
        ):
            await rows.check()
        await rows.close()


async def test_nobody_there_is_told_with_the_address() -> None:
    rows = SupabaseRows(SupabaseSettings(url="http://127.0.0.1:9", key=JWT))  # type: ignore[arg-type]
    with pytest.raises(SupabaseUnavailable, match=r"no answer from http://127\.0\.0\.1:9"):
        await rows.check()
    await rows.close()


@pytest.mark.parametrize(("key", "bearer"), [(JWT, f"Bearer {JWT}"), ("sb_secret_x", None)])
async def test_a_key_that_is_no_jwt_is_never_sent_as_one(key: str, bearer: str | None) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(request: web.Request, _json: Any) -> web.Response:
        seen.append((request.headers.get("apikey"), request.headers.get("authorization")))
        return web.json_response([], status=202 if "broadcast" in request.path else 200)

    async with supabase(answer, key) as settings:
        rows, broadcaster = SupabaseRows(settings), RealtimeBroadcaster(settings)
        await rows.mirror([])
        await broadcaster.send([])
        await rows.close()
        await broadcaster.close()
    assert seen == [(key, bearer)] * 2


async def test_what_jsonb_cannot_hold_is_replaced_and_nothing_is_lost() -> None:
    seen: list[Any] = []

    def answer(_request: web.Request, body: Any) -> web.Response:
        seen.append(body["batch"][0])
        return web.json_response([])

    line = LogLine("info", "a\x00b\ud800c", 1.0, {"x": float("inf")})
    fields = {"message": "\x00", "result": {"n": [float("nan"), 1.5, "\\u0000"]}}
    async with supabase(answer) as settings:
        rows = SupabaseRows(settings)
        await rows.mirror([Patch("r", 1, 0.0, fields, [line])])
        await rows.close()
    assert seen[0]["set"] == {"message": "\ufffd", "result": {"n": [None, 1.5, "\\u0000"]}}
    assert (seen[0]["logs"][0]["message"], seen[0]["logs"][0]["data"]) == ("a\ufffdb?c", {"x": None})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(401, {"message": "Unauthorized"}), KeyRefused),
        (status(413), BatchTooLarge),
        (
            status(429, {"message": "Too many messages to broadcast, please reduce the batch size"}),
            BatchTooLarge,
        ),
        (status(429, {"message": "You have exceeded your rate limit"}), RateExceeded),
        (status(422, {"errors": {"messages": [{}, {"payload": ["is invalid"]}]}}), MessagesRefused),
        (status(422, {"errors": {"messages": ["can't be blank"]}}), SupabaseUnavailable),
        (status(500), SupabaseUnavailable),
    ],
)
async def test_each_answer_of_realtime_is_one_clear_error(answer: Answer, error: type[Exception]) -> None:
    async with supabase(answer) as settings:
        broadcaster = RealtimeBroadcaster(settings)
        with pytest.raises(error) as raised:
            await broadcaster.send([message("a"), message("b")])
        await broadcaster.close()
    assert JWT not in str(raised.value)
    if isinstance(raised.value, MessagesRefused):
        assert raised.value.positions == {1}


class Realtime:
    """Takes at most `most` messages a request, none of runs in `bad`; counts what it took."""

    def __init__(self, most: int = 100, bad: frozenset[str] = frozenset()) -> None:
        self.most, self.bad = most, bad
        self.taken: list[str] = []
        self.private: set[bool] = set()
        self.away = False

    def __call__(self, _request: web.Request, body: Any) -> web.Response:
        messages = body["messages"]
        if self.away:
            return web.json_response({"message": "You have exceeded your rate limit"}, status=429)
        if len(messages) > self.most:
            return web.json_response({"message": "please reduce the batch size"}, status=429)
        problems = [
            {"payload": ["is invalid"]} if each["payload"]["r"] in self.bad else {} for each in messages
        ]
        if any(problems):
            return web.json_response({"errors": {"messages": problems}}, status=422)
        self.taken.extend(each["payload"]["r"] for each in messages)
        self.private.update(each["private"] for each in messages)
        return web.Response(status=202)


@asynccontextmanager
async def sending(realtime: Realtime, **values: Any) -> AsyncIterator[Sender]:
    async with supabase(realtime) as settings:
        broadcaster = RealtimeBroadcaster(settings)

        async def sent(_: Any) -> None:
            pass

        own = BroadcastSettings(**{"messages_per_second": 2_500, "listeners": 0, **values})
        sender = Sender(broadcaster, own, sent, timedelta(seconds=0.1))
        task = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await broadcaster.close()


def of(*runs: str) -> list[tuple[Message, int]]:
    return [(message(run, payload=json.dumps({"r": run}).encode()), 0) for run in runs]


async def test_a_bad_message_is_taken_out_and_the_others_go() -> None:
    realtime = Realtime(bad=frozenset("bd"))
    async with sending(realtime) as sender:
        assert await sender.offer(of(*"abcde"), patience=10) == []
        assert (sender.messages, sender.refused) == (3, 2)
    assert sorted(realtime.taken) == ["a", "c", "e"]
    assert realtime.private == {True}


async def test_batches_shrink_to_what_realtime_takes() -> None:
    realtime = Realtime(most=7)
    runs = [str(number) for number in range(100)]
    async with sending(realtime) as sender:
        assert await sender.offer(of(*runs), patience=10) == []
    assert sorted(realtime.taken) == sorted(runs)


async def test_what_an_outage_holds_back_is_known_and_sent_after_it() -> None:
    realtime = Realtime()
    realtime.away = True
    async with sending(realtime) as sender:
        held = await sender.offer(of("a", "b"), patience=10)
        assert sorted(pending.run_id for pending in held) == ["a", "b"]
        assert [pending.run_id for pending in await sender.offer(of("a"), patience=10)] == ["a"]
        realtime.away = False
        await eventually(lambda: len(realtime.taken) == 2, "both are sent once")
        assert not sender.outage
    assert sorted(realtime.taken) == ["a", "b"]


async def test_the_plans_rate_counts_every_delivery() -> None:
    realtime = Realtime()
    runs = [str(number) for number in range(200)]
    async with sending(realtime, messages_per_second=100, listeners=4) as sender:
        held = await sender.offer(of(*runs), patience=0.1)
        # 90 % of 100 a second, 5 for each message: 18 at once.
        assert len(realtime.taken) >= 18
        assert len(held) >= 200 - 18 - 10
