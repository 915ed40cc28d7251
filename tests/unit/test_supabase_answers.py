"""What the bridge makes of every answer that Supabase's REST API and Realtime can give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.backoff import Outage
from bridge.broadcast import RateExceeded, RealtimeBroadcaster
from bridge.errors import (
    BatchRefused,
    BatchTooLarge,
    KeyRefused,
    MessagesRefused,
    SchemaMissing,
    SupabaseUnavailable,
    TaskcastError,
    TooMuchAtOnce,
)
from bridge.events import LogLine, Patch
from bridge.exchange import LONGEST_ASKED
from bridge.messages import Message, current_messages, messages_for
from bridge.publisher.sender import Sender
from bridge.rows import SupabaseRows
from bridge.settings import BroadcastSettings, SupabaseSettings
from tests.waiting import eventually

JWT = "eyJ.service.role"
APPLIED: dict[str, Any] = {
    "id": "r", "outcome": "applied", "channel": "c", "logs": [], "parents": [],
    "snapshot": {"run_id": "r", "task": "t", "status": "completed", "seq": 3},
}  # fmt: skip
Answer = Callable[[web.Request, Any], web.Response]


@asynccontextmanager
async def supabase(answer: Answer, key: str = JWT) -> AsyncIterator[SupabaseSettings]:
    """A server that answers every request with `answer(request, its JSON)`."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request, await request.json() if request.can_read_body else None)

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
        (status(500, {"code": "57014", "message": "canceling statement"}), TooMuchAtOnce),
        (status(500, {"code": "55P03", "message": "canceling statement due to lock timeout"}), TooMuchAtOnce),
        (status(500, {"code": "54000", "message": "index row requires 9000 bytes"}), BatchRefused),
        (status(503, {"code": "PGRST002"}), SupabaseUnavailable),
        (lambda _request, _json: web.Response(status=502, text="<html>"), SupabaseUnavailable),
        (lambda _request, _json: web.Response(text="<html>"), SupabaseUnavailable),
        (status(400, {"code": "P0001", "message": "a trigger of the application's own"}), BatchRefused),
        (status(200, []), SupabaseUnavailable),  # not one word on what was written
        (status(200, {"id": "r", "outcome": "applied"}), SupabaseUnavailable),
        (status(200, [{"id": "another", "outcome": "applied"}]), SupabaseUnavailable),
        (lambda _request, _json: web.Response(text="[" * 100_000), SupabaseUnavailable),
        (status(200, [{**APPLIED, "snapshot": {**APPLIED["snapshot"], "seq": "3"}}]), SupabaseUnavailable),
        (status(200, [{**APPLIED, "logs": [{"line": None}]}]), SupabaseUnavailable),
        (status(500, {"code": "x" * 5_000}), SupabaseUnavailable),
        (status(500, {"code": "\n\x1b[2J"}), SupabaseUnavailable),
    ],
)
async def test_each_answer_of_rest_is_one_clear_error(answer: Answer, error: type[Exception]) -> None:
    async with supabase(answer) as settings:
        rows = SupabaseRows(settings)
        with pytest.raises(error) as raised:
            await rows.mirror([Patch("r", 1, 0.0)])
        await rows.close()
    assert a_line(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_an_answer_of_ours_is_read() -> None:
    async with supabase(status(200, [APPLIED])) as settings:
        rows = SupabaseRows(settings)
        [found] = await rows.mirror([Patch("r", 1, 0.0)])
        await rows.close()
    assert found.current is not None
    assert (found.outcome, found.current.channel, found.current.snapshot["seq"]) == ("applied", "c", 3)


async def test_an_older_schema_is_told_with_the_command_that_helps() -> None:
    async with supabase(status(200, 0)) as settings:
        rows = SupabaseRows(settings)
        with pytest.raises(
            SchemaMissing, match=r"version 0 .* needs 3; apply .*supabase --workdir .* db push"
        ):
            await rows.check()
        await rows.close()


@pytest.mark.parametrize("refusal", [status(413), status(400, {"code": "22P02", "message": "bad"})])
async def test_a_refusal_of_what_writes_nothing_is_an_outage(refusal: Answer) -> None:
    async with supabase(refusal) as settings:
        rows = SupabaseRows(settings)
        for ask in (rows.check(), rows.snapshots(["r"])):
            with pytest.raises(SupabaseUnavailable):
                await ask
        await rows.close()


def dated(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("7", 7, 7),
        (100, 90, 100),
        (-100, 0, 0),
        ("999999999999", LONGEST_ASKED, LONGEST_ASKED),
        ("9" * 400, LONGEST_ASKED, LONGEST_ASKED),
        *((nonsense, 0, 0) for nonsense in ("", "soon", "-5", "1.5", "nan", "\xb2", "Mon, 99 Foo 0")),
    ],
)
async def test_who_asks_to_be_left_alone_is_left_alone(asked: str | int, low: float, high: float) -> None:
    """In seconds, or until a date."""

    def answer(_request: web.Request, _json: Any) -> web.Response:
        until = asked if isinstance(asked, str) else dated(asked)
        return web.Response(status=429, headers={"Retry-After": until})

    async with supabase(answer) as settings:
        rows, broadcaster = SupabaseRows(settings), RealtimeBroadcaster(settings)
        for ask in (rows.mirror([Patch("r", 1, 0.0)]), broadcaster.send([message("a")])):
            with pytest.raises(SupabaseUnavailable) as raised:
                await ask
            assert low <= raised.value.retry_after <= high
            delay = Outage("x", "y", timedelta(seconds=0.5)).failed(raised.value)
            assert low <= delay <= max(1.1 * high, 0.5)
        await rows.close()
        await broadcaster.close()


async def test_an_answer_that_never_ends_is_given_up_in_time_and_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.exchange.ANSWER_LIMIT", 100_000)

    async def endless(piece: bytes, pause: float) -> type[Exception]:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await response.write(piece)
                    await asyncio.sleep(pause)
            return response

        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        own = SupabaseSettings(url=f"http://127.0.0.1:{runner.addresses[0][1]}", key=JWT)  # type: ignore[arg-type]
        rows = SupabaseRows(own, timedelta(seconds=0.3))
        told = await outcome(rows.check())
        await rows.close()
        await runner.cleanup()
        assert a_line(told)
        return type(told)

    assert await endless(b" ", 0.05) is TooMuchAtOnce  # each byte in time, the whole never
    assert await endless(b" " * 50_000, 0) is TooMuchAtOnce


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
        return web.json_response([{"id": "r", "outcome": "unknown"}])

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
async def sending(realtime: Answer, **values: Any) -> AsyncIterator[Sender]:
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


async def test_a_message_that_is_too_large_alone_holds_up_no_other() -> None:
    realtime = Realtime()

    def answer(request: web.Request, body: Any) -> web.Response:
        if any(each["payload"]["r"] == "huge" for each in body["messages"]):
            return web.Response(status=413)
        return realtime(request, body)

    huge = message("huge", payload=json.dumps({"r": "huge", "more": "x" * 20_000}).encode())
    async with sending(answer) as sender:
        assert await sender.offer([*of("a"), (huge, 0), *of("b", "c")], patience=10) == []
        assert (sender.messages, sender.refused) == (3, 1)
    assert sorted(realtime.taken) == ["a", "b", "c"]


async def test_who_refuses_small_messages_as_too_large_is_away_and_no_message_is_given_up() -> None:
    realtime = Realtime()
    away = True

    def answer(request: web.Request, body: Any) -> web.Response:
        return web.Response(status=413) if away else realtime(request, body)

    async with sending(answer) as sender:
        held = await sender.offer(of("a", "b", "c"), patience=10)
        assert sorted(pending.run_id for pending in held) == ["a", "b", "c"]
        away = False
        await eventually(lambda: len(realtime.taken) == 3, "all are sent")
        assert sender.refused == 0


async def test_an_answer_that_refuses_messages_nobody_sent_is_waited_out() -> None:
    asked = 0

    def answer(_request: web.Request, _body: Any) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"errors": {"messages": [{}, {}, {"payload": ["is invalid"]}]}}, status=422)

    async with sending(answer) as sender:
        assert [pending.run_id for pending in await sender.offer(of("a"), patience=10)] == ["a"]
        assert sender.outage
    assert asked < 5


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
        await eventually(
            lambda: len(realtime.taken) == 2 and not sender.outage, "both are sent, the outage is over"
        )
    assert sorted(realtime.taken) == ["a", "b"]


async def test_the_plans_rate_counts_every_delivery() -> None:
    realtime = Realtime()
    runs = [str(number) for number in range(200)]
    async with sending(realtime, messages_per_second=100, listeners=4) as sender:
        held = await sender.offer(of(*runs), patience=0.1)
        # 90 % of 100 a second, 5 for each message: 18 at once.
        assert len(realtime.taken) >= 18
        assert len(held) >= 200 - 18 - 10


# What anything in between may answer: a proxy, a captive portal, half a Supabase.

URL = "http://supabase.test"
REST_ERRORS = (BatchRefused, BatchTooLarge, KeyRefused, SchemaMissing, SupabaseUnavailable)
RUNS = ["0a1b2c3d-0000-4000-8000-000000000001", "0a1b2c3d-0000-4000-8000-000000000002"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def nearly(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Objects with these members, any of which may be missing or something else."""
    return st.fixed_dictionaries({}, optional={name: each | json_values for name, each in values.items()})


snapshots = nearly(
    {"run_id": st.sampled_from(RUNS), "task": st.just("t"), "status": st.just("completed"), "seq": st.just(3)}
)
lines = nearly({"line": st.just(1), "level": st.just("info"), "message": st.just("x")})
announcements = {"id": st.sampled_from(RUNS), "channel": st.just("c") | st.none(), "snapshot": snapshots}
results = nearly(
    {
        **announcements,
        "outcome": st.sampled_from(["applied", "duplicate", "stale"]),
        "state_changed": st.booleans(),
        "progress_changed": st.booleans(),
        "logs": st.lists(lines, max_size=2),
        "parents": st.lists(nearly(announcements), max_size=2),
    }
)
problems = nearly(
    {
        "code": st.sampled_from(["22P02", "PGRST202", "42501", "57014", "x" * 5_000, "\n\x1b[2J"]),
        "message": st.text(),
        "errors": nearly({"messages": st.lists(nearly({"payload": st.just(["is invalid"])}), max_size=4)}),
    }
)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"<html>502</html>", b"[" * 20_000, b'{"a":' * 5_000, b"9" * 5_000, b"\xff"]),
    (json_values | problems | st.lists(results, max_size=3)).map(dumped),
    st.lists(results, max_size=3).map(dumped).flatmap(lambda raw: st.integers(0, 20).map(lambda n: raw[:-n])),
)  # fmt: skip
header_lists = st.lists(
    st.sampled_from(
        [
            ("content-type", "application/json"),
            ("content-type", "text/html; charset=hex"),
            ("content-type", "application/json; charset=no-such"),
            ("content-encoding", "gzip"),
            ("content-encoding", "br"),
            ("content-length", "5"),
            ("retry-after", "x"),
            ("set-cookie", "\xe4=;;;="),
            ("location", "http://["),
        ]
    ),
    max_size=3,
)
statuses = st.sampled_from(
    [200, 200, 200, 201, 202, 204, 206, 301, 302, 400, 401, 403, 404, 409, 413, 422, 429]
)
answers = st.tuples(statuses | st.integers(100, 599), header_lists, bodies)


class Answering(httpx.AsyncBaseTransport):
    """Answers every request with the same bytes, decoded only when they are read, as from a wire."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._answer = (status, headers, body)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self._answer
        named = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        return httpx.Response(status, headers=named, stream=httpx.ByteStream(body))


def a_line(error: Exception) -> bool:
    """Whether an error may stand in a log: one printable line of bounded length, without the key."""
    text = str(error)
    return text.isprintable() and len(text) < 500 and JWT not in text


async def outcome(asked: Awaitable[Any]) -> Any:
    """What was answered, or the one of our errors that it came to."""
    try:
        return await asked
    except TaskcastError as error:
        return error


@given(answers)
@example((202, [("set-cookie", "\xe4=;;;=")], b"1"))  # sent back, it would spoil every later request
@settings(deadline=None)
def test_whatever_rest_answers_is_a_result_or_one_of_its_errors(answer: tuple[int, Any, bytes]) -> None:
    async def asked() -> list[Any]:
        rows = SupabaseRows(SupabaseSettings(url=URL, key=JWT))  # type: ignore[arg-type]
        rows._rest._client._transport = Answering(*answer)
        patches = [Patch(run, 1, 0.0) for run in RUNS]
        found = [await outcome(each) for each in (rows.mirror(patches), rows.snapshots(RUNS), rows.check())]
        await rows.close()
        return found

    written, read, _ = found = asyncio.run(asked())
    for error in (each for each in found if isinstance(each, TaskcastError)):
        assert isinstance(error, REST_ERRORS)
        assert a_line(error)
    if isinstance(written, list):
        assert [each.run_id for each in written] == RUNS
        messages_for(written)
    if isinstance(read, list):
        for each in read:
            current_messages(each)


@given(answers)
@example((202, [("set-cookie", "\xe4=;;;=")], b"1"))  # sent back, it would spoil every later request
@settings(deadline=None)
def test_whatever_realtime_answers_is_one_of_its_errors(answer: tuple[int, Any, bytes]) -> None:
    async def sent() -> Any:
        broadcaster = RealtimeBroadcaster(SupabaseSettings(url=URL, key=JWT))  # type: ignore[arg-type]
        broadcaster._client._transport = Answering(*answer)
        found = [await outcome(broadcaster.send([message("a"), message("b")])) for _ in range(2)]
        await broadcaster.close()
        return found

    for found in asyncio.run(sent()):
        if found is None:
            assert answer[0] == 202
        elif isinstance(found, MessagesRefused):
            assert found.positions
            assert found.positions <= {0, 1}
        else:
            assert isinstance(found, BatchTooLarge | KeyRefused | SupabaseUnavailable)
            assert a_line(found)


@given(
    st.binary(max_size=200)
    | st.tuples(st.sampled_from([b"200 OK", b"500 No", b"202 \xff", b"99 x"]), st.binary(max_size=40)).map(
        lambda parts: b"HTTP/1.1 " + parts[0] + b"\r\ncontent-length: 30\r\n\r\n" + parts[1]
    )
)
@settings(deadline=None, max_examples=40)
def test_whatever_comes_over_the_wire_before_it_is_cut_is_an_outage(raw: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async def asked() -> None:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            own = SupabaseSettings(url=f"http://127.0.0.1:{port}", key=JWT)  # type: ignore[arg-type]
            rows, broadcaster = SupabaseRows(own), RealtimeBroadcaster(own)
            for ask in (rows.check(), broadcaster.send([message("a")])):
                told = await outcome(ask)
                assert isinstance(told, SupabaseUnavailable) or b" 202" in raw
                assert told is None or a_line(told)
            await rows.close()
            await broadcaster.close()

    asyncio.run(asked())
