from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from bridge.errors import KeyRefused, SupabaseUnavailable
from bridge.local.running import RunningStack
from tasks.import_socials.errors import AccountRemoved
from tasks.import_socials.models import Account, Page, Post, Provider, StoredPost, Topic
from tasks.import_socials.store import Added
from tasks.import_socials.supabase_store import BATCH, SupabaseStore
from tests.conftest import User


@pytest.fixture
def store(stack: RunningStack) -> Iterator[SupabaseStore]:
    with SupabaseStore.connect(stack.url, stack.secret_key) as store:
        yield store


class Rest:
    """The REST interface as a user's browser sees it."""

    def __init__(self, stack: RunningStack, token: str) -> None:
        headers = {
            "apikey": stack.anon_key,
            "Authorization": f"Bearer {token}",
            "Prefer": "return=representation",
        }
        self.client = httpx.Client(base_url=f"{stack.url}/rest/v1", headers=headers, timeout=30)

    def connect(self, provider: Provider, handle: str, token: str | None = None, **values: Any) -> str:
        answer = self.client.post("/social_accounts", json={"provider": provider, "handle": handle, **values})
        assert answer.status_code == 201, answer.text
        account_id: str = answer.json()[0]["id"]
        if token:
            arguments = {"account_id": account_id, "access_token": token}
            assert self.client.post("/rpc/set_social_account_token", json=arguments).status_code == 204
        return account_id

    def rows(self, table: str, **filters: str) -> list[dict[str, Any]]:
        answer = self.client.get(f"/{table}", params=filters)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows


@pytest.fixture
def rest(stack: RunningStack, user: User) -> Iterator[Rest]:
    rest = Rest(stack, user.token)
    yield rest
    rest.client.close()


@pytest.fixture
def stranger(stack: RunningStack, new_user: Callable[[], User]) -> Iterator[Rest]:
    rest = Rest(stack, new_user().token)
    yield rest
    rest.client.close()


@pytest.fixture
def account(rest: Rest, store: SupabaseStore, user: User) -> Account:
    rest.connect(Provider.REDDIT, "alice", "t0k3n", server="https://reddit.example")
    return store.accounts(user.id)[0]


def post(number: int, text: str = "", **values: Any) -> Post:
    return Post(f"p{number}", "alice", text or f"Post {number}", "https://example.org/1", **values)


def page(*posts: Post, **cursor: Any) -> Page:
    return Page(posts, cursor, is_last=True)


def test_an_account_is_read_with_its_token_and_cursor(
    store: SupabaseStore, account: Account, user: User
) -> None:
    assert (account.provider, account.handle, account.token) == (Provider.REDDIT, "alice", "t0k3n")
    assert account.server == "https://reddit.example"
    store.add_page(account, page(mark="7", known=["p7"]))
    assert store.accounts(user.id) == [replace(account, cursor={"mark": "7", "known": ["p7"]})]


def test_a_page_is_stored_once_however_often_it_comes(
    store: SupabaseStore, account: Account, rest: Rest
) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    posts = [
        post(1, published_at=at, language="en"),
        post(2, "hostile ' \" \\ \u202e 🦋 </script>"),
        post(2, "again"),
    ]
    assert store.add_page(account, page(*posts)) == Added(2, 0)
    assert store.add_page(account, page(*posts)) == Added(0, 0)
    assert store.add_page(account, page(post(1, "edited"), post(3))) == Added(1, 1)
    rows = {row["external_id"]: row for row in rest.rows("posts")}
    assert {key: row["content"] for key, row in rows.items()} == {
        "p1": "edited",
        "p2": "hostile ' \" \\ \u202e 🦋 </script>",
        "p3": "Post 3",
    }
    assert rows["p1"]["provider"] == "reddit"


def test_a_long_page_is_stored_whole_and_its_cursor_last(
    store: SupabaseStore, account: Account, rest: Rest, user: User
) -> None:
    many = [post(number) for number in range(2 * BATCH + 1)]
    assert store.add_page(account, page(*many, mark="end")) == Added(len(many), 0)
    assert store.accounts(user.id)[0].cursor == {"mark": "end"}
    assert len(store.posts_to_embed(account, "m")) == len(many)


def test_how_an_import_ended_stands_on_the_account(
    store: SupabaseStore, account: Account, rest: Rest
) -> None:
    store.record_import(account, "reddit/alice: the token was refused (401); connect the account again")
    [row] = rest.rows("social_accounts")
    assert (row["status"], row["last_imported_at"]) == ("failed", None)
    assert row["last_error"].startswith("reddit/alice: ")
    store.record_import(account, None)
    [row] = rest.rows("social_accounts")
    assert (row["status"], row["last_error"]) == ("connected", None)
    assert row["last_imported_at"] is not None


def embed(store: SupabaseStore, model: str, posts: Sequence[StoredPost], size: int = 3) -> int:
    return store.set_embeddings(model, [(stored, [0.1 * at for at in range(size)]) for stored in posts])


def test_posts_are_embedded_once_and_anew_when_text_or_model_change(
    store: SupabaseStore, account: Account, user: User
) -> None:
    store.add_page(account, page(post(1), post(2), replace(post(3), text="")))
    to_embed = store.posts_to_embed(account, "small")
    assert sorted(stored.text for stored in to_embed) == ["Post 1", "Post 2"]
    assert embed(store, "small", to_embed) == 2
    assert store.posts_to_embed(account, "small") == []
    embedded = store.embedded_posts(user.id, "small")
    assert [one.embedding for one in embedded] == [pytest.approx([0, 0.1, 0.2])] * 2
    store.add_page(account, page(post(1, "edited"), post(2)))
    assert [stored.text for stored in store.posts_to_embed(account, "small")] == ["edited"]
    # Another model has other dimensions, in the same column.
    large = store.posts_to_embed(account, 'large, "v2" (x)')
    assert embed(store, 'large, "v2" (x)', large, size=8) == 2
    assert len(store.embedded_posts(user.id, 'large, "v2" (x)')) == 2
    assert store.embedded_posts(user.id, "small") == []


def test_an_embedding_of_a_text_that_changed_meanwhile_is_not_stored(
    store: SupabaseStore, account: Account
) -> None:
    store.add_page(account, page(post(1)))
    read = store.posts_to_embed(account, "m")
    store.add_page(account, page(post(1, "edited")))
    assert embed(store, "m", read) == 0


def topic(label: str, *posts: StoredPost) -> Topic:
    members = {stored.id: 0.5 for stored in posts}
    return Topic(label, ["k1", "k2"], members, [stored.id for stored in posts[:1]])


def test_topics_are_replaced_as_a_whole_and_keep_their_ids(
    store: SupabaseStore, account: Account, rest: Rest, user: User
) -> None:
    store.add_page(account, page(post(1), post(2)))
    one, two = store.posts_to_embed(account, "m")
    first = [topic("Cooking", one, two), topic("Trains", two)]
    for _ in range(2):
        store.replace_topics(user.id, first)
        before = {row["label"]: row for row in rest.rows("topics")}
        assert {label: row["size"] for label, row in before.items()} == {"Cooking": 2, "Trains": 1}
        assert len(rest.rows("post_topics")) == 3
        sizes = {label: len(ids) for label, ids in store.members_by_label(user.id).items()}
        assert sizes == {"Cooking": 2, "Trains": 1}
    store.replace_topics(user.id, [topic("Cooking", two)])
    [row] = rest.rows("topics")
    assert (row["id"], row["size"], row["example_post_ids"]) == (before["Cooking"]["id"], 1, [two.id])
    [member] = rest.rows("post_topics")
    assert (member["post_id"], member["score"]) == (two.id, 0.5)
    with pytest.raises(ValueError, match="topic labels must differ"):
        store.replace_topics(user.id, [topic("A"), topic("A")])
    store.replace_topics(user.id, [])
    assert rest.rows("topics") == []


def test_an_account_that_was_disconnected_takes_its_posts_along_and_ends_its_import(
    store: SupabaseStore, account: Account, rest: Rest, user: User
) -> None:
    store.add_page(account, page(post(1)))
    assert rest.client.delete("/social_accounts", params={"id": f"eq.{account.id}"}).status_code in (200, 204)
    assert rest.rows("posts") == []
    assert store.accounts(user.id) == []
    with pytest.raises(AccountRemoved, match="reddit/alice: the account was disconnected"):
        store.add_page(account, page(post(2)))


# ---------------------------------------------------------------- what users may do


TABLES = ("social_accounts", "posts", "topics", "post_topics")


def test_a_user_sees_his_own_rows_and_nobody_elses(
    store: SupabaseStore, account: Account, rest: Rest, stranger: Rest, user: User
) -> None:
    store.add_page(account, page(post(1)))
    store.replace_topics(user.id, [topic("Cooking", *store.posts_to_embed(account, "m"))])
    for table in TABLES:
        assert len(rest.rows(table)) == 1
        assert stranger.rows(table) == []


def test_a_stranger_changes_nothing(
    account: Account, rest: Rest, stranger: Rest, store: SupabaseStore, user: User
) -> None:
    token = {"account_id": account.id, "access_token": "stolen"}
    assert stranger.client.post("/rpc/set_social_account_token", json=token).status_code >= 400
    stranger.client.delete("/social_accounts", params={"id": f"eq.{account.id}"})
    stolen = {"provider": "feed", "handle": "x", "user_id": user.id}
    assert stranger.client.post("/social_accounts", json=stolen).status_code == 403
    assert store.accounts(user.id) == [account]


def test_nobody_but_the_service_reads_tokens(account: Account, rest: Rest, stack: RunningStack) -> None:
    assert rest.client.get("/social_account_secrets").status_code == 403
    assert (
        rest.client.get("/social_accounts", params={"select": "*,social_account_secrets(*)"}).status_code
        == 403
    )
    assert "t0k3n" not in rest.client.get("/social_accounts").text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/social_accounts", {"provider": "feed", "handle": "x", "cursor": {"a": 1}}),
        ("POST", "/social_accounts", {"provider": "feed", "handle": "x", "status": "failed"}),
        ("PATCH", "/social_accounts", {"handle": "bob"}),
        ("POST", "/posts", {"external_id": "x", "content": "x"}),
        ("PATCH", "/posts", {"content": "x"}),
        ("DELETE", "/posts", None),
        ("POST", "/topics", {"label": "x", "size": 1}),
        ("DELETE", "/topics", None),
        ("DELETE", "/post_topics", None),
        (
            "POST",
            "/rpc/store_posts",
            {"p_account": "00000000-0000-0000-0000-000000000000", "p_posts": [], "p_cursor": {}},
        ),
        ("POST", "/rpc/set_embeddings", {"p_model": "m", "p_embeddings": []}),
        ("POST", "/rpc/replace_topics", {"p_user": "00000000-0000-0000-0000-000000000000", "p_topics": []}),
    ],
)
def test_a_user_writes_nothing_but_accounts(rest: Rest, method: str, path: str, body: Any) -> None:
    assert rest.client.request(method, path, json=body, params={}).status_code in (401, 403, 404)


@pytest.mark.parametrize("table", [*TABLES, "social_account_secrets"])
def test_who_is_not_signed_in_sees_nothing(stack: RunningStack, table: str) -> None:
    answer = httpx.get(f"{stack.url}/rest/v1/{table}", headers={"apikey": stack.anon_key}, timeout=30)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "values",
    [
        {"provider": "myspace", "handle": "x"},
        {"provider": "feed", "handle": ""},
        {"provider": "feed", "handle": "x" * 501},
        {"provider": "feed", "handle": "x", "server": "y" * 2001},
    ],
)
def test_an_account_that_cannot_be_is_refused(rest: Rest, values: dict[str, str]) -> None:
    assert rest.client.post("/social_accounts", json=values).status_code == 400


def test_an_account_is_connected_once(rest: Rest) -> None:
    rest.connect(Provider.FEED, "blog")
    assert (
        rest.client.post("/social_accounts", json={"provider": "feed", "handle": "blog"}).status_code == 409
    )


# ---------------------------------------------------------------- a store that cannot be reached


def test_a_wrong_key_and_a_missing_server_are_told(stack: RunningStack, user: User) -> None:
    with SupabaseStore.connect(stack.url, stack.publishable_key) as store, pytest.raises(KeyRefused):
        store.accounts(user.id)
    nowhere = SupabaseStore.connect("http://127.0.0.1:9", stack.secret_key, attempts=2)
    with nowhere as store, pytest.raises(SupabaseUnavailable):
        store.record_import(Account("1", user.id, Provider.FEED, "x"), None)
