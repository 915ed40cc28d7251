"""Broadcasting over HTTP: `/api/broadcast` and, for one message, `/api/broadcast/{topic}/events/{event}`."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .authorization import BROADCAST
from .batch import TOO_LARGE, BadBatch, Outgoing, parse_batch
from .database import DatabaseUnavailable
from .fanout import Address
from .frames import BinaryBroadcast, load
from .tokens import Claims, TokenRefused

if TYPE_CHECKING:
    from .tenant import Tenant

LARGEST_BODY = 8_000_000

_UNSUPPORTED = "Unsupported Media Type. Use application/json or application/octet-stream"


class _Answer(Exception):
    """Ends the handling of a request with this response."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


def _refuse(status: int, message: str) -> _Answer:
    return _Answer(web.json_response({"message": message}, status=status))


def _page(status: int, text: str) -> _Answer:
    return _Answer(web.Response(status=status, text=text, content_type="text/html"))


class Rest:
    """The aiohttp handlers."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    async def batch(self, request: web.Request) -> web.Response:
        """Broadcast several messages; one bad one refuses them all, a forbidden one is dropped in silence."""
        try:
            return await self._batch(request)
        except _Answer as answer:
            return answer.response

    async def single(self, request: web.Request) -> web.Response:
        """Broadcast one message, whose body is the payload."""
        try:
            return await self._single(request)
        except _Answer as answer:
            return answer.response

    async def _batch(self, request: web.Request) -> web.Response:
        body = await _read(request)
        decoded = _decode(body) if _is_json(request) else None
        claims = self._authenticate(request)
        try:
            messages = parse_batch(decoded, len(body), self._tenant.limits.payload_bytes)
        except BadBatch as error:
            raise _Answer(web.json_response({"errors": error.errors}, status=422)) from None
        self._check_rate(len(messages))
        for message in await self._permitted(messages, claims):
            address = Address(message.topic, message.private)
            self._tenant.fanout.broadcast(address, message.as_broadcast(), message_id=message.id)
        return self._accepted()

    async def _single(self, request: web.Request) -> web.Response:
        if request.method == "POST" and request.content_type not in (
            "application/json",
            "application/octet-stream",
        ):
            raise _Answer(web.json_response({"error": _UNSUPPORTED}, status=415))
        body = await _read(request)
        is_json = request.content_type == "application/json"
        if is_json:
            _decode(body)
        claims = self._authenticate(request)
        if len(body) > self._tenant.limits.payload_bytes:
            raise _Answer(web.json_response({"errors": {"payload": [TOO_LARGE]}}, status=422))
        if self._tenant.usage.events_per_second >= self._tenant.limits.events_per_second:
            raise _refuse(429, "You have exceeded your rate limit")
        address = Address(request.match_info["topic"], request.query.get("private") == "true")
        if address.private and not await self._may_write(address.topic, claims):
            raise _refuse(403, "Unauthorized")
        broadcast = BinaryBroadcast(request.match_info["event"], body or (b"{}" if is_json else b""), is_json)
        self._tenant.fanout.broadcast(address, broadcast)
        return self._accepted()

    def _authenticate(self, request: web.Request) -> Claims:
        try:
            claims = self._tenant.tokens.read(self._tenant.exchange_key(_token(request)))
        except TokenRefused:
            raise _refuse(401, "Unauthorized") from None
        if self._tenant.limits.suspended:
            raise _refuse(403, "Tenant is suspended")
        return claims

    def _check_rate(self, count: int) -> None:
        rate, limit = self._tenant.usage.events_per_second, self._tenant.limits.events_per_second
        if rate > limit:
            raise _refuse(429, "You have exceeded your rate limit")
        if rate + count > limit:
            raise _refuse(429, "Too many messages to broadcast, please reduce the batch size")

    async def _permitted(self, messages: list[Outgoing], claims: Claims) -> list[Outgoing]:
        """The messages that may go out, each topic's in order; a private topic is asked about once."""
        permitted = [message for message in messages if not message.private]
        private = sorted((m for m in messages if m.private), key=lambda message: message.topic)
        for topic, of_topic in groupby(private, key=lambda message: message.topic):
            if await self._may_write(topic, claims):
                permitted.extend(of_topic)
        return permitted

    async def _may_write(self, topic: str, claims: Claims) -> bool:
        try:
            answer = await self._tenant.authorizer.writes(topic, claims, [BROADCAST])
        except DatabaseUnavailable:
            raise _page(500, "Internal Server Error") from None
        return answer[BROADCAST]

    def _accepted(self) -> web.Response:
        limit, average = self._tenant.limits.events_per_second, int(self._tenant.usage.events_per_second)
        rates = {"x-rate-limit": limit, "x-rate-limit-remaining": limit - average, "x-rate-rolling": average}
        return web.Response(status=202, headers={name: str(value) for name, value in rates.items()})


def _token(request: web.Request) -> str:
    """The token to judge: Authorization wins over apikey, whatever it holds."""
    authorization = request.headers.get("authorization")
    if not authorization:
        return request.headers.get("apikey", "")
    parts = authorization.split(" ")
    if len(parts) != 2:
        raise _page(500, "Internal Server Error")
    scheme, token = parts
    return token if scheme.lower() == "bearer" else request.headers.get("apikey", "")


async def _read(request: web.Request) -> bytes:
    """The body of a POST, whatever limit the surrounding application sets."""
    if request.method != "POST":
        raise _page(404, "Not Found")
    if not _accepts_json(request.headers.get("accept")):
        raise _page(406, "Not Acceptable")
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > LARGEST_BODY:
            raise _page(413, "Request Entity Too Large")
        chunks.append(chunk)
    return b"".join(chunks)


def _accepts_json(accept: str | None) -> bool:
    if not accept:
        return True
    kinds = {kind.split(";")[0].strip() for kind in accept.split(",")}
    return bool(kinds & {"*/*", "application/*", "application/json"})


def _is_json(request: web.Request) -> bool:
    return request.content_type == "application/json" or request.content_type.endswith("+json")


def _decode(body: bytes) -> Any:
    if not body:
        return {}
    try:
        return load(body)
    except (ValueError, RecursionError):
        raise _page(400, "Bad Request") from None
