"""The endpoints for the holder of a service key: create, list, read, change and delete users."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from bridge.local.auth import passwords, users
from bridge.local.auth.refusals import Handler, Refusal, explained
from bridge.local.auth.requests import body_of, metadata_of, number_of, password_of
from bridge.local.auth.tokens import Tokens
from bridge.local.auth.users import Connection, User

_TAKEN = Refusal(422, "email_exists", "A user with this email address has already been registered")
_UNKNOWN = Refusal(404, "user_not_found", "User not found")


class Admin:
    """Serves below /auth/v1/admin."""

    def __init__(
        self, transaction: Callable[[], AbstractAsyncContextManager[Connection]], tokens: Tokens
    ) -> None:
        self._transaction, self._tokens = transaction, tokens

    def routes(self) -> Iterable[web.RouteDef]:
        """The routes, relative to /auth/v1."""
        return [
            web.post("/admin/users", self._guarded(self._create)),
            web.get("/admin/users", self._guarded(self._list)),
            web.get("/admin/users/{id}", self._guarded(self._read)),
            web.put("/admin/users/{id}", self._guarded(self._change)),
            web.delete("/admin/users/{id}", self._guarded(self._delete)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._tokens.require_admin(request)
            return await handler(request)

        return explained(handle)

    async def _create(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        if not body.get("email"):
            raise Refusal(400, "validation_failed", "Cannot create a user without an email")
        fields = await _columns(body)
        fields["raw_app_meta_data"] = {
            "provider": "email",
            "providers": ["email"],
            **fields.get("raw_app_meta_data", {}),
        }
        if body.get("id"):
            fields["id"] = _uuid(body["id"])
        async with self._transaction() as connection:
            user = await users.create(connection, fields, taken=_TAKEN)
        return web.json_response(users.shown(user))

    async def _list(self, request: web.Request) -> web.Response:
        number = number_of(request, "page", 1, 1_000_000)
        size = number_of(request, "per_page", 50, 1_000)
        async with self._transaction() as connection:
            found, total = await users.page(connection, number, size)
        return web.json_response(
            {"users": [users.shown(user) for user in found], "aud": "authenticated"},
            headers={"X-Total-Count": str(total), "Link": _links(request, number, size, total)},
        )

    async def _read(self, request: web.Request) -> web.Response:
        async with self._transaction() as connection:
            return web.json_response(users.shown(await _named(connection, request)))

    async def _change(self, request: web.Request) -> web.Response:
        fields = await _columns(await body_of(request))
        async with self._transaction() as connection:
            user = await _named(connection, request)
            changed = await users.change(connection, user["id"], fields, taken=_TAKEN)
        return web.json_response(users.shown(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._transaction() as connection:
            user = await _named(connection, request)
            await users.delete(connection, user["id"])
        return web.json_response({})


async def _columns(body: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if body.get("email"):
        fields["email"] = users.checked_email(body["email"])
    if body.get("email_confirm"):
        fields["email_confirmed_at"] = datetime.now(UTC)
    if password := password_of(body):
        fields["encrypted_password"] = await passwords.hashed(password)
    if isinstance(role := body.get("role"), str) and role:
        fields["role"] = role
    for field, column in (("user_metadata", "raw_user_meta_data"), ("app_metadata", "raw_app_meta_data")):
        if data := metadata_of(body, field):
            fields[column] = data
    return fields


async def _named(connection: Connection, request: web.Request) -> User:
    if (user := await users.by_id(connection, _uuid(request.match_info["id"]))) is None:
        raise _UNKNOWN
    return user


def _uuid(text: object) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise Refusal(404, "validation_failed", "user_id must be an UUID") from None


def _links(request: web.Request, number: int, size: int, total: int) -> str:
    last = max(1, -(-total // size))
    pages = {"next": number + 1, "last": last} if number < last else {"last": last}
    return ", ".join(
        f'<{request.path}?page={page}&per_page={size}>; rel="{name}"' for name, page in pages.items()
    )
