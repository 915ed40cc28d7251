"""One origin for REST, Auth and Realtime, opened by keys of both kinds."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psycopg
import pytest
from postgrest import CountMethod
from supabase import create_client

from bridge.local.running import RunningStack
from tests.conftest import User
from tests.waiting import wait_until

KEYS = ["anon_key", "publishable_key", "service_key", "secret_key"]


@pytest.fixture(scope="module")
def notes(stack: RunningStack) -> Iterator[str]:
    """A table whose rows belong to users; the service role sees all of them."""
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute(
            """
            create table public.gateway_notes (id int primary key, owner uuid default auth.uid(), text text);
            alter table public.gateway_notes enable row level security;
            create policy own on public.gateway_notes using (owner = auth.uid());
            insert into public.gateway_notes values (1, gen_random_uuid(), 'hidden');
            notify pgrst, 'reload schema';
            """
        )
        address = f"{stack.url}/rest/v1/gateway_notes"
        headers = {"apikey": stack.anon_key}
        wait_until(lambda: httpx.get(address, headers=headers).is_success, "PostgREST knows the table")
        yield address
        connection.execute("drop table public.gateway_notes")


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("place", ["apikey header", "bearer", "both", "query"])
def test_every_key_opens_rest_in_every_place_with_its_role(
    stack: RunningStack, notes: str, name: str, place: str
) -> None:
    key = getattr(stack, name)
    bearer = {"Authorization": f"Bearer {key}"}
    headers = {"apikey header": {"apikey": key}, "bearer": bearer, "both": {"apikey": key, **bearer}}
    answer = httpx.get(
        notes, headers=headers.get(place, {}), params={"apikey": key} if place == "query" else {}
    )
    assert answer.status_code == 200
    assert len(answer.json()) == (1 if name in ("service_key", "secret_key") else 0)


def test_no_key_and_a_wrong_key_are_refused(notes: str) -> None:
    without, wrong = httpx.get(notes), httpx.get(notes, headers={"apikey": "sb_publishable_wrong"})
    assert (without.status_code, without.json()["message"]) == (401, "No API key found in request")
    assert (wrong.status_code, wrong.json()["message"]) == (401, "Invalid API key")


@pytest.mark.parametrize("name", ["anon_key", "publishable_key"])
def test_a_users_token_passes_through_beside_either_key(
    stack: RunningStack, notes: str, user: User, name: str
) -> None:
    headers = {"apikey": getattr(stack, name), "Authorization": f"Bearer {user.token}"}
    text = "größer ; \u2028 than 100 %"
    created = httpx.post(
        notes,
        headers={**headers, "Prefer": "return=representation"},
        json={"id": hash(name) % 10_000 + 2, "text": text},
    )
    assert created.status_code == 201
    assert created.json()[0] == {"id": created.json()[0]["id"], "owner": user.id, "text": text}
    assert [note["text"] for note in httpx.get(notes, headers=headers).json()] == [text]


# supabase-py itself passes its REST client the deprecated parameters `timeout` and `verify`.
@pytest.mark.filterwarnings("ignore:The '.*' parameter is deprecated:DeprecationWarning")
def test_rest_keeps_paths_filters_and_headers_byte_for_byte(stack: RunningStack, notes: str) -> None:
    with create_client(stack.url, stack.secret_key).postgrest as rest:
        counted = rest.from_("gateway_notes").select("id", count=CountMethod.exact)
        rows = counted.in_("text", ["hidden", "a,(b)"]).execute()
    assert (rows.data, rows.count) == ([{"id": 1}], 1)
    head = httpx.head(f"{notes}?select=id", headers={"apikey": stack.secret_key, "Prefer": "count=exact"})
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-range"].rpartition("/")[2]) >= 1


def test_a_large_answer_and_a_large_request_stream_through(stack: RunningStack, notes: str) -> None:
    headers = {"apikey": stack.secret_key, "Prefer": "return=representation"}
    rows = [{"id": 100_000 + n, "text": "x" * 10_000} for n in range(300)]
    created = httpx.post(f"{notes}?select=text", json=rows, headers=headers, timeout=60)
    assert len(created.content) > 3_000_000
    deleted = httpx.delete(f"{notes}?id=gte.100000", headers={"apikey": stack.secret_key})
    assert deleted.status_code == 204


@pytest.mark.parametrize("path", ["/rest/v1/gateway_notes", "/auth/v1/user", "/realtime/v1/api/broadcast"])
def test_a_page_of_this_machine_may_call(stack: RunningStack, path: str) -> None:
    preflight = httpx.options(
        stack.url + path,
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "apikey,authorization,x-made-up",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "x-made-up" in preflight.headers["access-control-allow-headers"]
    called = httpx.post(stack.url + path, headers={"Origin": "http://localhost:3000"})
    assert called.headers["access-control-allow-origin"] == "*"


def test_a_table_made_later_is_served_at_once(stack: RunningStack) -> None:
    headers = {"apikey": stack.service_key}
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("create table made_later (id uuid default extensions.uuid_generate_v4())")
        try:
            wait_until(
                lambda: httpx.get(f"{stack.url}/rest/v1/made_later", headers=headers).status_code == 200,
                "PostgREST serves the table",
            )
        finally:
            connection.execute("drop table made_later")
