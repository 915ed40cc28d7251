"""The rows of auth.users and auth.identities."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composable, Identifier, Placeholder
from psycopg.types.json import Jsonb

from bridge.local.auth.refusals import Refusal

Connection = AsyncConnection[DictRow]
User = dict[str, Any]

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|[^@\s]+@localhost")
_SELECT = """
  select u.*, (
    select coalesce(jsonb_agg(to_jsonb(i) order by i.created_at), '[]')
    from auth.identities i where i.user_id = u.id
  ) as identities
  from auth.users u
"""

_MERGE = """
  {0} = coalesce(
    (select jsonb_object_agg(key, value) from jsonb_each({0} || {1}) where value <> 'null'), '{{}}'
  )
"""


def checked_email(email: object) -> str:
    """Refuse what is no address; addresses are compared in lower case."""
    if not isinstance(email, str) or len(email) > 255 or not _EMAIL.fullmatch(email.strip()):
        raise Refusal(400, "validation_failed", "Unable to validate email address: invalid format")
    return email.strip().lower()


async def by_id(connection: Connection, user_id: UUID) -> User | None:
    """The user, or None."""
    return await (await connection.execute(_SELECT + "where u.id = %s", (user_id,))).fetchone()


async def by_email(connection: Connection, email: str) -> User | None:
    """The user, or None."""
    found = await connection.execute(_SELECT + "where lower(u.email) = lower(%s)", (email,))
    return await found.fetchone()


async def page(connection: Connection, number: int, size: int) -> tuple[list[User], int]:
    """One page of all users, newest first, and the count of all."""
    found = await connection.execute(
        _SELECT + "order by u.created_at desc, u.id limit %s offset %s", (size, (number - 1) * size)
    )
    users = await found.fetchall()
    total = await (await connection.execute("select count(*) as n from auth.users")).fetchone()
    return users, total["n"] if total else 0


async def create(connection: Connection, fields: dict[str, Any], *, taken: Refusal) -> User:
    """Insert a user and, with an address, the identity that goes with it; `taken` when the address is."""
    try:
        # A savepoint: the caller's transaction goes on after a refused insert.
        async with connection.transaction():
            inserted = await connection.execute(
                SQL("insert into auth.users ({}) values ({}) returning id").format(
                    SQL(", ").join(map(Identifier, fields)), SQL(", ").join(map(Placeholder, fields))
                ),
                _adapted(fields),
            )
    except psycopg.errors.UniqueViolation:
        raise taken from None
    row = await inserted.fetchone()
    assert row is not None
    if fields.get("email"):
        await _write_identity(connection, row["id"], fields["email"])
    return await _existing(connection, row["id"])


async def change(connection: Connection, user_id: UUID, fields: dict[str, Any], *, taken: Refusal) -> User:
    """Update columns of a user; metadata is merged key by key, where null removes a key."""
    merged = {"raw_app_meta_data", "raw_user_meta_data"}
    sets: list[Composable] = [
        SQL(_MERGE if name in merged else "{0} = {1}").format(Identifier(name), Placeholder(name))
        for name in fields
    ]
    sets.append(SQL("updated_at = now()"))
    statement = SQL("update auth.users set {} where id = {}").format(
        SQL(", ").join(sets), Placeholder("the_user")
    )
    try:
        async with connection.transaction():
            await connection.execute(statement, {**_adapted(fields), "the_user": user_id})
    except psycopg.errors.UniqueViolation:
        raise taken from None
    if fields.get("email"):
        await _write_identity(connection, user_id, fields["email"])
    return await _existing(connection, user_id)


async def delete(connection: Connection, user_id: UUID) -> None:
    """Remove a user with all that hangs on him."""
    await connection.execute("delete from auth.users where id = %s", (user_id,))


def shown(user: User) -> dict[str, Any]:
    """A user as GoTrue's JSON shows him."""
    known = {
        "id": user["id"],
        "aud": user["aud"],
        "role": user["role"],
        "email": user["email"] or "",
        "phone": user["phone"] or "",
        "app_metadata": user["raw_app_meta_data"],
        "user_metadata": user["raw_user_meta_data"],
        "identities": [_shown_identity(identity) for identity in user["identities"]],
        "created_at": user["created_at"],
        "updated_at": user["updated_at"],
        "is_anonymous": user["is_anonymous"],
    }
    optional = ("email_confirmed_at", "confirmed_at", "last_sign_in_at", "invited_at", "banned_until")
    known |= {name: user[name] for name in optional if user[name] is not None}
    plain: dict[str, Any] = json.loads(json.dumps(known, default=_plain))
    return plain


async def _existing(connection: Connection, user_id: UUID) -> User:
    if (user := await by_id(connection, user_id)) is None:
        raise Refusal(404, "user_not_found", "User not found")
    return user


async def _write_identity(connection: Connection, user_id: UUID, email: str) -> None:
    data = {"sub": str(user_id), "email": email, "email_verified": False, "phone_verified": False}
    await connection.execute(
        "insert into auth.identities (user_id, provider, provider_id, identity_data) "
        "values (%s, 'email', %s, %s) "
        "on conflict (provider, provider_id) do update "
        "set identity_data = excluded.identity_data, updated_at = now()",
        (user_id, str(user_id), Jsonb(data)),
    )


def _adapted(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: Jsonb(value) if isinstance(value, dict) else value for name, value in fields.items()}


def _shown_identity(identity: dict[str, Any]) -> dict[str, Any]:
    return {
        "identity_id": identity["id"],
        "id": identity["provider_id"],
        "user_id": identity["user_id"],
        "identity_data": identity["identity_data"],
        "provider": identity["provider"],
        "last_sign_in_at": identity["last_sign_in_at"],
        "created_at": identity["created_at"],
        "updated_at": identity["updated_at"],
        "email": identity["identity_data"].get("email"),
    }


def _plain(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)
