"""The demo's users on the Supabase project: signed up, signed in, their accounts connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
from supabase import AsyncClient, acreate_client

from bridge.local.endpoints import HasEndpoints

_PASSWORD = "demo-only-password"  # noqa: S105  of made-up users on a stack that only this machine reaches


@dataclass(frozen=True)
class Connected:
    """An account to connect: what a row of `social_accounts` needs."""

    provider: str
    handle: str
    server: str
    token: str | None = field(default=None, repr=False)


@dataclass
class Person:
    """A signed-in demo user with an official client of their own."""

    name: str
    user_id: str
    client: AsyncClient
    accounts: Sequence[Connected]


class Directory:
    """Makes users and connects accounts with the service key, as an app's backend would."""

    def __init__(self, stack: HasEndpoints) -> None:
        self._stack = stack
        key = stack.service_key
        self._http = httpx.AsyncClient(
            base_url=stack.url, headers={"apikey": key, "Authorization": f"Bearer {key}"}, timeout=30
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def person(self, name: str, accounts: Sequence[Connected]) -> Person:
        """The user of that name, made when missing, with these accounts."""
        email = f"{sha256(name.encode()).hexdigest()[:12]}@demo.example"
        account = {"email": email, "password": _PASSWORD, "email_confirm": True}
        answer = await self._http.post("/auth/v1/admin/users", json=account)
        if answer.status_code != 422:  # 422: there since an earlier demo
            answer.raise_for_status()
        client = await acreate_client(self._stack.url, self._stack.anon_key)
        session = await client.auth.sign_in_with_password({"email": email, "password": _PASSWORD})
        if session.session is None or session.user is None:
            raise RuntimeError(f"{email} could not sign in")
        await client.realtime.set_auth(session.session.access_token)
        await self.connect(session.user.id, accounts)
        return Person(name, session.user.id, client, accounts)

    async def connect(self, user_id: str, accounts: Sequence[Connected]) -> None:
        """Connect accounts that the user does not have yet; the servers of the others may have moved."""
        have = await self._rows("social_accounts", user_id=f"eq.{user_id}", select="id,provider,handle")
        ids = {(row["provider"], row["handle"]): row["id"] for row in have}
        new = [one for one in accounts if (one.provider, one.handle) not in ids]
        rows = [
            {"user_id": user_id, "provider": one.provider, "handle": one.handle, "server": one.server}
            for one in new
        ]
        for row in await self._insert("social_accounts", rows):
            ids[row["provider"], row["handle"]] = row["id"]
        for one in accounts:
            if one not in new:
                await self._move(ids[one.provider, one.handle], one.server)
        secrets = [
            {"account_id": ids[one.provider, one.handle], "access_token": one.token}
            for one in new
            if one.token
        ]
        await self._insert("social_account_secrets", secrets)

    async def posts_of(self, user_id: str) -> dict[tuple[str, str], list[str]]:
        """The external ids of the stored posts by (provider, handle)."""
        accounts = await self._rows("social_accounts", user_id=f"eq.{user_id}", select="id,provider,handle")
        found: dict[tuple[str, str], list[str]] = {}
        for account in accounts:
            posts = await self._all(
                "posts", account_id=f"eq.{account['id']}", select="external_id", order="id"
            )
            found[account["provider"], account["handle"]] = [post["external_id"] for post in posts]
        return found

    async def _all(self, table: str, **query: str) -> list[Any]:
        rows: list[Any] = []
        while page := await self._rows(table, **query, offset=str(len(rows)), limit="1000"):
            rows += page
            if len(page) < 1000:
                break
        return rows

    async def _rows(self, table: str, **query: str) -> list[Any]:
        answer = await self._http.get(f"/rest/v1/{table}", params=query)
        answer.raise_for_status()
        rows: list[Any] = answer.json()
        return rows

    async def _insert(self, table: str, rows: Sequence[dict[str, Any]]) -> list[Any]:
        if not rows:
            return []
        headers = {"Prefer": "return=representation"}
        answer = await self._http.post(f"/rest/v1/{table}", json=list(rows), headers=headers)
        if not answer.is_success:
            raise RuntimeError(f"{table}: {answer.text}")
        inserted: list[Any] = answer.json()
        return inserted

    async def _move(self, account_id: str, server: str) -> None:
        answer = await self._http.patch(
            "/rest/v1/social_accounts", params={"id": f"eq.{account_id}"}, json={"server": server}
        )
        answer.raise_for_status()
