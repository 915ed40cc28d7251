"""Sessions and their refresh tokens, which change at every use."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from bridge.local.auth import users
from bridge.local.auth.refusals import Refusal
from bridge.local.auth.tokens import LIFETIME, Tokens
from bridge.local.auth.users import Connection, User

# GoTrue's default: two tabs that refresh at the same moment both go on.
_REUSE_INTERVAL = timedelta(seconds=10)


async def open_session(connection: Connection, tokens: Tokens, user: User, method: str) -> dict[str, Any]:
    """Sign a user in; return GoTrue's session JSON."""
    amr = [{"method": method, "timestamp": int(time.time())}]
    opened = await connection.execute(
        "insert into auth.sessions (user_id, amr) values (%s, %s) returning id", (user["id"], Jsonb(amr))
    )
    session = await opened.fetchone()
    assert session is not None
    await connection.execute(
        "update auth.users set last_sign_in_at = now(), updated_at = now() where id = %s", (user["id"],)
    )
    refresh_token = await _issue(connection, session["id"], parent=None)
    current = await users.by_id(connection, user["id"])
    assert current is not None
    return _shown(tokens, current, session["id"], amr, refresh_token)


async def refresh(connection: Connection, tokens: Tokens, refresh_token: str) -> dict[str, Any] | None:
    """Exchange a refresh token for a new session JSON.

    A token used again within 10 s gets the session's newest one; later it ends the session, since one of
    its two users is a thief: then the answer is None, for the caller to refuse once that is committed.
    """
    found = await connection.execute(
        "select t.*, s.user_id, s.amr from auth.refresh_tokens t join auth.sessions s on s.id = t.session_id "
        "where t.token = %s for update",
        (refresh_token,),
    )
    token = await found.fetchone()
    if token is None:
        raise Refusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
    newest = await _newest(connection, token["session_id"])
    if token["revoked_at"] is None:
        newest = await _rotate(connection, token)
    elif newest is None or datetime.now(UTC) - token["revoked_at"] > _REUSE_INTERVAL:
        await close(connection, token["user_id"], token["session_id"], scope="local")
        return None
    user = await users.by_id(connection, token["user_id"])
    assert user is not None
    return _shown(tokens, user, token["session_id"], token["amr"], newest)


async def exists(connection: Connection, session_id: UUID) -> bool:
    """Whether a session is open."""
    found = await connection.execute("select from auth.sessions where id = %s", (session_id,))
    return await found.fetchone() is not None


async def close(connection: Connection, user_id: UUID, session_id: UUID | None, scope: str) -> None:
    """Sign out: "global" ends all sessions of the user, "local" this one, "others" all but this one."""
    condition = {"global": "true", "local": "id = %(session)s", "others": "id is distinct from %(session)s"}
    if scope not in condition:
        raise Refusal(400, "validation_failed", f"Unsupported logout scope {scope!r:.40}")
    await connection.execute(
        f"delete from auth.sessions where user_id = %(user)s and {condition[scope]}",  # noqa: S608
        {"user": user_id, "session": session_id},
    )


async def _rotate(connection: Connection, token: dict[str, Any]) -> str:
    await connection.execute(
        "update auth.refresh_tokens set revoked_at = now() where token = %s", (token["token"],)
    )
    await connection.execute(
        "update auth.sessions set updated_at = now() where id = %s", (token["session_id"],)
    )
    return await _issue(connection, token["session_id"], parent=token["token"])


async def _newest(connection: Connection, session_id: UUID) -> str | None:
    found = await connection.execute(
        "select token from auth.refresh_tokens where session_id = %s and revoked_at is null", (session_id,)
    )
    row = await found.fetchone()
    return row["token"] if row else None


async def _issue(connection: Connection, session_id: UUID, parent: str | None) -> str:
    token = secrets.token_urlsafe(9)
    await connection.execute(
        "insert into auth.refresh_tokens (token, session_id, parent) values (%s, %s, %s)",
        (token, session_id, parent),
    )
    return token


def _shown(
    tokens: Tokens, user: User, session_id: UUID, amr: list[dict[str, Any]], refresh_token: str | None
) -> dict[str, Any]:
    access_token, expires_at = tokens.sign(user, session_id, amr)
    return {
        "access_token": access_token,
        "token_type": "bearer",
        "expires_in": int(LIFETIME.total_seconds()),
        "expires_at": expires_at,
        "refresh_token": refresh_token,
        "user": users.shown(user),
    }
