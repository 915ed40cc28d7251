"""The endpoints for users: sign-up, sign-in, refresh, one's own account, sign-out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from bridge.local.auth import passwords, sessions, users
from bridge.local.auth.admin import Admin
from bridge.local.auth.refusals import Refusal, explained
from bridge.local.auth.requests import body_of, metadata_of, password_of
from bridge.local.auth.tokens import Tokens
from bridge.local.auth.users import Connection, User
from bridge.local.keys import Keys

_WAIT_SECONDS = 5.0  # for a connection, before the answer is "Database error"
_REGISTERED = Refusal(422, "user_already_exists", "User already registered")
_EMAIL_TAKEN = Refusal(422, "email_exists", "A user with this email address has already been registered")
_WRONG = Refusal(400, "invalid_credentials", "Invalid login credentials")
_SETTINGS = {
    "external": {"anonymous_users": True, "email": True, "phone": False},
    "disable_signup": False,
    "mailer_autoconfirm": True,
    "phone_autoconfirm": False,
    "sms_provider": "",
    "saml_enabled": False,
}


class Auth:
    """Serves below /auth/v1 from the tables of the schema `auth`."""

    def __init__(self, database_url: str, keys: Keys, issuer: str) -> None:
        self._tokens = Tokens(keys, issuer)
        self._pool = AsyncConnectionPool[Connection](
            database_url,
            connection_class=AsyncConnection,
            kwargs={"row_factory": dict_row},
            # After an outage of Postgres the pool is full of dead connections.
            check=AsyncConnectionPool.check_connection,
            min_size=1,
            max_size=8,
            timeout=_WAIT_SECONDS,
            open=False,
        )
        self._admin = Admin(self.transaction, self._tokens)

    async def start(self) -> None:
        """Open the pool."""
        await self._pool.open(wait=True)

    async def stop(self) -> None:
        """Close the pool."""
        await self._pool.close()

    def routes(self) -> Iterable[web.RouteDef]:
        """The routes, relative to /auth/v1."""
        return [
            web.get("/health", self._health),
            web.get("/settings", self._settings),
            web.get("/.well-known/jwks.json", self._no_public_keys),
            web.post("/signup", explained(self._sign_up)),
            web.post("/token", explained(self._token)),
            web.get("/user", explained(self._user)),
            web.put("/user", explained(self._change_user)),
            web.post("/logout", explained(self._sign_out)),
            *self._admin.routes(),
            web.route("*", "/{path:.*}", explained(self._not_covered)),
        ]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection whose work is committed at the block's end."""
        async with self._pool.connection() as connection:
            yield connection

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"name": "GoTrue", "description": "taskcast's stand-in", "version": "local"})

    async def _settings(self, _request: web.Request) -> web.Response:
        return web.json_response(_SETTINGS)

    async def _no_public_keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": []})

    async def _not_covered(self, request: web.Request) -> web.Response:
        what = f"{request.method} {request.path[:100]}"
        raise Refusal(
            404, "not_covered", f"The embedded Auth has no {what}; the Supabase CLI's stack has all of GoTrue"
        )

    async def _sign_up(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        data = metadata_of(body, "data")
        if body.get("phone"):
            raise Refusal(400, "phone_provider_disabled", "Phone signups are disabled")
        if not body.get("email") and not body.get("password"):
            return web.json_response(await self._signed_up({"raw_user_meta_data": data}, "anonymous"))
        email = users.checked_email(body.get("email"))
        if not (password := password_of(body)):
            raise Refusal(400, "validation_failed", "Signup requires a valid password")
        fields = new_user(email, data) | {"encrypted_password": await passwords.hashed(password)}
        return web.json_response(await self._signed_up(fields, "password"))

    async def _signed_up(self, fields: dict[str, Any], method: str) -> dict[str, Any]:
        fields = {**fields, "is_anonymous": method == "anonymous"}
        async with self.transaction() as connection:
            user = await users.create(connection, fields, taken=_REGISTERED)
            return await sessions.open_session(connection, self._tokens, user, method)

    async def _token(self, request: web.Request) -> web.Response:
        grants = {"password": self._by_password, "refresh_token": self._by_refresh_token}
        grant = grants.get(request.query.get("grant_type", ""))
        if grant is None:
            raise Refusal(400, "invalid_credentials", "unsupported_grant_type")
        return web.json_response(await grant(await body_of(request)))

    async def _by_password(self, body: dict[str, Any]) -> dict[str, Any]:
        email, password = body.get("email"), password_of(body)
        if body.get("phone") or not isinstance(email, str) or not password:
            raise _WRONG
        async with self.transaction() as connection:
            user = await users.by_email(connection, email.strip())
        if (
            not await passwords.matches(password, user["encrypted_password"] if user else None)
            or user is None
        ):
            raise _WRONG
        if user["banned_until"] and user["banned_until"] > datetime.now(UTC):
            raise Refusal(400, "user_banned", "User is banned")
        async with self.transaction() as connection:
            return await sessions.open_session(connection, self._tokens, user, "password")

    async def _by_refresh_token(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body.get("refresh_token")
        if not isinstance(token, str) or not token:
            raise Refusal(400, "validation_failed", "refresh_token required")
        async with self.transaction() as connection:
            session = await sessions.refresh(connection, self._tokens, token)
        if session is None:
            raise Refusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        return session

    async def _user(self, request: web.Request) -> web.Response:
        async with self.transaction() as connection:
            return web.json_response(users.shown(await self._signed_in(connection, request)))

    async def _change_user(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        fields: dict[str, Any] = {}
        if data := metadata_of(body, "data"):
            fields["raw_user_meta_data"] = data
        if body.get("email"):
            fields |= confirmed(users.checked_email(body["email"]))
        async with self.transaction() as connection:
            user = await self._signed_in(connection, request)
        if password := password_of(body):
            if await passwords.matches(password, user["encrypted_password"]):
                raise Refusal(422, "same_password", "New password should be different from the old password.")
            fields["encrypted_password"] = await passwords.hashed(password)
        async with self.transaction() as connection:
            changed = await users.change(connection, user["id"], fields, taken=_EMAIL_TAKEN)
        return web.json_response(users.shown(changed))

    async def _sign_out(self, request: web.Request) -> web.Response:
        claims = self._tokens.user_of(request)
        async with self.transaction() as connection:
            scope = request.query.get("scope", "global")
            await sessions.close(connection, claims.user_id, claims.session_id, scope)
        return web.Response(status=204)

    async def _signed_in(self, connection: Connection, request: web.Request) -> User:
        claims = self._tokens.user_of(request)
        user = await users.by_id(connection, claims.user_id)
        if user is None:
            raise Refusal(403, "user_not_found", "User from sub claim in JWT does not exist")
        if claims.session_id and not await sessions.exists(connection, claims.session_id):
            raise Refusal(403, "session_not_found", "Session from session_id claim in JWT does not exist")
        return user


def new_user(email: str, data: dict[str, Any]) -> dict[str, Any]:
    """The columns of a user who signs up with a (by this stack always confirmed) address."""
    return confirmed(email) | {"raw_user_meta_data": {**data, "email": email, "email_verified": True}}


def confirmed(email: str) -> dict[str, Any]:
    """The columns that a confirmed address sets."""
    return {
        "email": email,
        "email_confirmed_at": datetime.now(UTC),
        "is_anonymous": False,
        "raw_app_meta_data": {"provider": "email", "providers": ["email"]},
    }
