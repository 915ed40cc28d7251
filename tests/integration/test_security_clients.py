"""What a signed-in user tries on rows and channels of another, by PostgREST's and Realtime's own means."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from bridge.local.running import RunningStack
from tests.conformance.wire import Wire
from tests.conftest import User

SECRET = "the-victims-provider-token"


@dataclass(frozen=True)
class Victim:
    """A user with a row in every table."""

    id: str
    account: str
    run: str


@pytest.fixture
def victim(stack: RunningStack, new_user: Callable[[], User]) -> Victim:
    found = Victim(new_user().id, str(uuid.uuid4()), str(uuid.uuid4()))
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(
            """
            with one as (insert into social_accounts (id, user_id, provider, handle)
                         values (%(account)s, %(id)s, 'feed', 'victims') returning id),
                 run as (insert into processing_jobs (id, user_id, task) values (%(run)s, %(id)s, 'victims')),
                 topic as (insert into topics (user_id, label, size)
                           values (%(id)s, 'victims', 1) returning id),
                 ticket as (insert into background_jobs (user_id, task) values (%(id)s, 'victims'))
            select from one, topic
            """,
            vars(found),
        )
        connection.execute(
            """
            with post as (insert into posts (user_id, account_id, external_id, provider, content)
                          values (%(id)s, %(account)s, 'victims', 'feed', 'victims') returning id)
            insert into post_topics (post_id, topic_id, user_id, score)
            select post.id, topics.id, %(id)s, 1 from post, topics where topics.user_id = %(id)s
            """,
            vars(found),
        )
        connection.execute("insert into social_account_secrets values (%s, %s)", (found.account, SECRET))
        connection.execute(
            "insert into processing_job_logs (job_id, seq, user_id, level, message) "
            "values (%s, 1, %s, 'info', 'victims')",
            (found.run, found.id),
        )
    return found


@pytest.fixture
def attacker(stack: RunningStack, user: User) -> Iterator[httpx.Client]:
    headers = {"apikey": stack.anon_key, "Authorization": f"Bearer {user.token}"}
    with httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def nobody(stack: RunningStack) -> Iterator[httpx.Client]:
    headers = {"apikey": stack.anon_key}
    with httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers, timeout=30) as client:
        yield client


READS = [
    "/processing_jobs?select=*",
    "/processing_job_logs?select=*",
    "/background_jobs?select=*",
    "/social_accounts?select=*",
    "/posts?select=*",
    "/posts?select=*,social_accounts(*),post_topics(*,topics(*))",
    "/topics?select=*,post_topics(*,posts(*))",
    "/post_topics?select=*,posts!inner(*)",
    "/processing_jobs?select=*,processing_job_logs!inner(*)",
    "/posts?select=count()",
    "/posts?select=id&or=(user_id.not.is.null,id.not.is.null)&order=embedding",
]


@pytest.mark.parametrize("path", READS)
def test_another_users_rows_are_never_seen(
    attacker: httpx.Client, nobody: httpx.Client, victim: Victim, path: str
) -> None:
    seen = attacker.get(path)
    assert "victims" not in seen.text
    assert victim.id not in seen.text
    assert seen.is_success is (path != "/posts?select=count()"), seen.text
    assert nobody.get(path).status_code in (400, 401, 403)


@pytest.mark.parametrize(
    "path",
    [
        "/social_account_secrets?select=*",
        "/social_account_secrets?select=account_id",
        "/social_account_secrets?access_token=like.the*&select=account_id",
        "/social_accounts?select=*,social_account_secrets(*)",
        "/social_accounts?select=id,social_account_secrets!inner()&social_account_secrets.access_token=like.t*",
        "/social_accounts?select=id,social_account_secrets()&order=social_account_secrets(access_token)",
        "/posts?select=id,social_accounts(social_account_secrets(access_token))",
    ],
)
def test_tokens_are_neither_read_nor_asked_about(attacker: httpx.Client, victim: Victim, path: str) -> None:
    asked = attacker.get(path)
    assert asked.status_code == 403, asked.text
    assert SECRET not in asked.text


def test_a_user_does_not_read_back_even_a_token_of_his_own(attacker: httpx.Client, user: User) -> None:
    row = {"user_id": user.id, "provider": "reddit", "handle": "me"}
    created = attacker.post("/social_accounts", json=row, headers={"Prefer": "return=representation"})
    own = created.json()[0]["id"]
    said = attacker.post("/rpc/set_social_account_token", json={"account_id": own, "access_token": "t"})
    assert said.status_code == 204
    assert attacker.get(f"/social_account_secrets?account_id=eq.{own}").status_code == 403


def test_a_user_connects_a_bounded_number_of_accounts(attacker: httpx.Client, user: User) -> None:
    def connect(first: int, last: int) -> httpx.Response:
        rows = [{"user_id": user.id, "provider": "feed", "handle": f"{n}"} for n in range(first, last)]
        return attacker.post("/social_accounts", json=rows)

    assert connect(0, 100).status_code == 201
    for first, last in ((100, 101), (100, 5_000)):
        refused = connect(first, last)
        assert (refused.status_code, refused.json()["code"]) == (400, "23514")


@pytest.mark.parametrize("resolution", ["merge-duplicates", "ignore-duplicates"])
def test_upserts_touch_no_row_of_another(
    stack: RunningStack, attacker: httpx.Client, victim: Victim, user: User, resolution: str
) -> None:
    prefer = {"Prefer": f"resolution={resolution},return=representation"}
    mine = {"user_id": user.id}
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("/social_accounts", {"id": victim.account, **mine, "provider": "feed", "handle": "x"}),
        ("/social_accounts?on_conflict=id", {"user_id": victim.id, "provider": "feed", "handle": "x"}),
        ("/social_accounts", {"user_id": victim.id, "provider": "feed", "handle": "x"}),
        ("/social_accounts", {**mine, "provider": "feed", "handle": "x", "cursor": {}}),
        ("/social_account_secrets", {"account_id": victim.account, "access_token": "mine"}),
        ("/processing_jobs", {"id": victim.run, **mine, "message": "x"}),
        ("/processing_job_logs", {"job_id": victim.run, "seq": 2, **mine, "level": "info", "message": "x"}),
        ("/background_jobs", {"user_id": victim.id, "task": "x"}),
        ("/background_jobs", {"id": victim.run, **mine, "task": "x"}),
        ("/background_jobs", {**mine, "task": "x", "status": "completed"}),
        ("/background_jobs", {**mine, "task": "x", "priority": 9}),
        (
            "/posts",
            {"account_id": victim.account, **mine, "external_id": "x", "provider": "feed", "content": "x"},
        ),
        ("/topics", {**mine, "label": "x", "size": 1}),
    ]
    for path, row in attempts:
        refused = attacker.post(path, json=row, headers=prefer)
        assert refused.status_code in (401, 403), (path, row, refused.text)
        assert "victims" not in refused.text
    with psycopg.connect(stack.database_url) as connection:
        [token] = connection.execute(
            "select access_token from social_account_secrets where account_id = %s", [victim.account]
        ).fetchall()
    assert token == (SECRET,)


@pytest.mark.parametrize(
    "table", ["processing_jobs", "processing_job_logs", "background_jobs", "posts", "topics", "post_topics"]
)
def test_rows_of_the_service_are_neither_changed_nor_deleted(attacker: httpx.Client, table: str) -> None:
    assert attacker.patch(f"/{table}?user_id=not.is.null", json={"user_id": None}).status_code == 403
    assert attacker.delete(f"/{table}?user_id=not.is.null").status_code == 403


def test_disconnecting_ends_with_ones_own_accounts(attacker: httpx.Client, victim: Victim) -> None:
    answer = attacker.delete("/social_accounts?id=not.is.null", headers={"Prefer": "return=representation"})
    assert "victims" not in answer.text
    assert attacker.patch("/social_accounts?id=not.is.null", json={"handle": "x"}).status_code == 403


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("mirror_runs", {"batch": []}),
        ("run_snapshots", {"ids": []}),
        ("taskcast_schema_version", {}),
        ("quiet_runs", {"deployment": "default", "quiet": 0, "after": str(uuid.uuid4()), "most": 1}),
        ("quiet_tickets", {"deployment": "default", "quiet": 0, "most": 1}),
        ("return_tickets", {"tickets": []}),
        ("store_posts", {"p_account": str(uuid.uuid4()), "p_posts": [], "p_cursor": None}),
        ("set_embeddings", {"p_model": "x", "p_embeddings": []}),
        ("replace_topics", {"p_user": str(uuid.uuid4()), "p_topics": []}),
    ],
)
def test_the_services_functions_are_closed(
    attacker: httpx.Client, nobody: httpx.Client, function: str, arguments: dict[str, Any]
) -> None:
    for client in (attacker, nobody):
        assert client.post(f"/rpc/{function}", json=arguments).status_code in (401, 403)


def test_no_token_is_set_for_another(attacker: httpx.Client, nobody: httpx.Client, victim: Victim) -> None:
    arguments = {"account_id": victim.account, "access_token": "mine"}
    assert attacker.post("/rpc/set_social_account_token", json=arguments).json()["code"] == "P0002"
    assert nobody.post("/rpc/set_social_account_token", json=arguments).status_code in (401, 403)


@pytest.mark.parametrize("schema", ["taskcast", "realtime", "auth", "extensions", "supabase_migrations"])
def test_no_other_schema_is_served(attacker: httpx.Client, schema: str) -> None:
    assert attacker.get("/messages", headers={"Accept-Profile": schema}).status_code == 406
    assert attacker.post("/rpc/send", json={}, headers={"Content-Profile": schema}).status_code == 406


def test_the_description_of_the_api_names_nothing_closed(
    nobody: httpx.Client, attacker: httpx.Client
) -> None:
    for client in (nobody, attacker):
        described = client.get("/").text
        for name in ("social_account_secrets", "mirror_runs", "store_posts"):
            assert name not in described


TOPICS = [
    "import-socials-{other}",
    "import-socials-{me}-{other}",
    "{me}",
    "import-socials",
    "x{me}",
    "-{me}x",
]


@pytest.mark.parametrize("topic", TOPICS)
async def test_channels_of_others_are_not_joined(
    stack: RunningStack, user: User, victim: Victim, topic: str
) -> None:
    async with Wire.open(stack.url, stack.anon_key) as wire:
        name = topic.format(me=user.id, other=victim.id)
        _, payload = await wire.join(name, user.token, private=True)
        assert payload["status"] == "error"
        _, payload = await wire.join(f"import-socials-{user.id}", private=True)
        assert payload["status"] == "error", "the anon key is nobody's token"


async def test_nobody_but_the_service_sends_on_a_users_channel(stack: RunningStack, user: User) -> None:
    """By the socket, by REST, by presence: his own channel carries what the bridge says."""
    topic = f"import-socials-{user.id}"
    async with (
        Wire.open(stack.url, stack.anon_key) as listener,
        Wire.open(stack.url, stack.anon_key) as sender,
        httpx.AsyncClient(headers={"apikey": stack.anon_key}) as rest,
    ):
        config = {"private": True, "presence": {"key": "me", "enabled": True}}
        await listener.joined(topic, user.token, **config)
        ref = await sender.joined(topic, user.token, **config)
        await sender.broadcast(topic, "state", {"forged": True}, ref)
        forged = {"topic": topic, "event": "state", "payload": {"forged": True}}
        for token in (user.token, stack.anon_key):
            for private in (True, False):
                await rest.post(
                    f"{stack.url}/realtime/v1/api/broadcast",
                    json={"messages": [{**forged, "private": private}]},
                    headers={"Authorization": f"Bearer {token}"},
                )
        track = {"type": "presence", "event": "track", "payload": {"forged": True}}
        await sender.send(f"realtime:{topic}", "presence", track, ref)
        public = await sender.joined(f"{topic}", None, private=False)
        await sender.broadcast(topic, "state", {"forged": True}, public)
        await rest.post(
            f"{stack.url}/realtime/v1/api/broadcast",
            json={"messages": [{**forged, "event": "genuine", "private": True}]},
            headers={"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"},
        )
        heard = await listener.event("broadcast")
        assert heard.payload["event"] == "genuine"
        await listener.heard_nothing_of("presence_diff")


async def test_changes_of_another_users_rows_are_not_heard(
    stack: RunningStack, user: User, victim: Victim
) -> None:
    wanted = [
        {"event": "*", "schema": "public", "table": table}
        for table in ("processing_jobs", "processing_job_logs", "background_jobs")
    ]
    async with Wire.open(stack.url, stack.anon_key) as wire:
        await wire.joined("changes", user.token, postgres_changes=wanted)
        assert (await wire.system())["status"] == "ok"
        with psycopg.connect(stack.database_url) as connection:
            connection.execute("update processing_jobs set message = 'victims' where id = %s", [victim.run])
            connection.execute(
                "insert into processing_jobs (user_id, message) values (%s, 'mine')", [user.id]
            )
        change = (await wire.event("postgres_changes")).payload["data"]
        assert change["record"]["message"] == "mine"
        assert "victims" not in str([frame.raw for frame in wire.unread])


async def test_tables_outside_the_publication_send_no_changes(stack: RunningStack, user: User) -> None:
    async with Wire.open(stack.url, stack.anon_key) as wire:
        wanted = [{"event": "*", "schema": "public", "table": "social_account_secrets"}]
        await wire.joined("secrets", user.token, postgres_changes=wanted)
        assert (await wire.system())["status"] == "error"
