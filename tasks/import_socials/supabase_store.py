"""The store in Supabase's REST interface, by the official client and a service key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

import httpx
import tenacity
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from bridge.errors import KeyRefused, SchemaMissing, SupabaseUnavailable
from tasks.import_socials.errors import AccountRemoved
from tasks.import_socials.models import (
    Account,
    CursorState,
    EmbeddedPost,
    Page,
    Post,
    Provider,
    StoredPost,
    Topic,
)
from tasks.import_socials.store import Added, check_labels

T = TypeVar("T")

BATCH = 200
"""Rows of one request: well below the 1,000 that PostgREST gives at most by default."""

_TRANSIENT = ("PGRST00", "40001", "40P01", "57", "53", "08", "500")
_KEY = ("42501",)
_SCHEMA = ("PGRST200", "PGRST202", "PGRST204", "PGRST205", "42P01", "42883", "42703")
_GONE = "P0002"


class SupabaseStore:
    """Keeps accounts, posts and topics in a Supabase project.

    >>> with SupabaseStore.connect(url, key) as store:
    ...     accounts = store.accounts(user_id)
    """

    def __init__(self, client: Client, *, attempts: int = 5, max_backoff: float = 5.0) -> None:
        self._client = client
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=max_backoff),
            reraise=True,
        )

    @classmethod
    def connect(
        cls, url: str, key: str, *, timeout: timedelta = timedelta(seconds=30), attempts: int = 5
    ) -> SupabaseStore:
        """A store of the project at `url`; `key` is its secret or service_role key."""
        options = ClientOptions(
            auto_refresh_token=False,
            persist_session=False,
            # Ours covers writes too; both together would wait for minutes.
            postgrest_client_retry=False,
            httpx_client=httpx.Client(
                timeout=timeout.total_seconds(), event_hooks={"response": [_look_at_status]}
            ),
        )
        return cls(create_client(url, key, options), attempts=attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.postgrest.aclose()

    def accounts(self, user_id: str) -> list[Account]:
        query = self._client.table("social_accounts").select(
            "id,user_id,provider,handle,server,cursor,social_account_secrets(access_token)"
        )
        query = query.eq("user_id", user_id).order("created_at").order("id")
        return [_account(row) for row in self._run(query.execute)]

    def record_import(self, account: Account, error: str | None) -> None:
        values: dict[str, Any] = {"status": "failed" if error else "connected", "last_error": error}
        values |= {} if error else {"last_imported_at": datetime.now(UTC).isoformat()}
        self._run(self._client.table("social_accounts").update(values).eq("id", account.id).execute)

    def add_page(self, account: Account, page: Page) -> Added:
        posts = list({post.external_id: post for post in reversed(page.posts)}.values())
        inserted = updated = 0
        for batch, is_last in _batches(posts):
            arguments = {
                "p_account": account.id,
                "p_posts": [_row(post) for post in batch],
                "p_cursor": dict(page.cursor) if is_last else None,
            }
            try:
                [added] = self._call("store_posts", arguments)
            except APIError as error:
                if error.code == _GONE:
                    raise AccountRemoved(account) from error
                raise
            inserted, updated = inserted + added["inserted"], updated + added["updated"]
        return Added(inserted, updated)

    def posts_to_embed(self, account: Account, model: str) -> list[StoredPost]:
        filters = {
            "account_id": ("eq", account.id),
            "embedding_model": ("isdistinct", model),
            "content": ("neq", ""),
        }
        rows = self._all("id,account_id,content", filters)
        return [StoredPost(row["id"], row["account_id"], row["content"]) for row in rows]

    def set_embeddings(self, model: str, embeddings: Sequence[tuple[StoredPost, Sequence[float]]]) -> int:
        count = 0
        for batch, _ in _batches(embeddings):
            rows = [
                {"id": post.id, "md5": _md5(post.text), "embedding": _vector(vector)}
                for post, vector in batch
            ]
            if rows:
                count += self._call("set_embeddings", {"p_model": model, "p_embeddings": rows})
        return count

    def embedded_posts(self, user_id: str, model: str) -> list[EmbeddedPost]:
        filters = {"user_id": ("eq", user_id), "embedding_model": ("eq", model)}
        return [
            EmbeddedPost(row["id"], row["account_id"], row["content"], _numbers(row["embedding"]))
            for row in self._all("id,account_id,content,embedding", filters)
        ]

    def members_by_label(self, user_id: str) -> dict[str, set[str]]:
        query = self._client.table("topics").select("label,post_topics(post_id)").eq("user_id", user_id)
        rows = self._run(query.execute)
        return {row["label"]: {member["post_id"] for member in row["post_topics"]} for row in rows}

    def replace_topics(self, user_id: str, topics: Sequence[Topic]) -> None:
        self._call("replace_topics", {"p_user": user_id, "p_topics": _topic_rows(topics)})

    def _all(self, columns: str, filters: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Every row, in pages by id: an offset would skip rows when others vanish meanwhile."""
        last = "00000000-0000-0000-0000-000000000000"
        while True:
            query = self._client.table("posts").select(columns).gt("id", last).order("id").limit(BATCH)
            for column, (operator, value) in filters.items():
                query = query.filter(column, operator, value)
            rows = self._run(query.execute)
            yield from rows
            if len(rows) < BATCH:
                return
            last = rows[-1]["id"]

    def _call(self, function: str, arguments: Mapping[str, Any]) -> Any:
        return self._run(self._client.rpc(function, dict(arguments)).execute)

    def _run(self, execute: Callable[[], Any]) -> Any:
        try:
            return self._retrying(execute).data
        except httpx.TransportError as error:
            raise SupabaseUnavailable("Supabase did not answer") from error
        except APIError as error:
            if (told := _told(error)) is not None:
                raise told from error
            raise


class _Trouble(httpx.TransportError):
    """An answer that says no more than that there is none now."""


def _look_at_status(response: httpx.Response) -> None:
    """Judges what the gateway answers: its bodies carry no code, and the client drops the status."""
    if response.status_code == 429 or response.status_code > 500:
        raise _Trouble(f"status {response.status_code}")
    if response.status_code == 401:
        raise KeyRefused("Supabase refused the key (401); give the secret key (sb_secret_...)")


def _told(error: APIError) -> Exception | None:
    code = str(error.code or "")
    if _is_transient(error):
        return SupabaseUnavailable(f"Supabase cannot answer now ({code})")
    if code.startswith(_KEY):
        return KeyRefused(f"Supabase refused the key ({code}); give the secret key (sb_secret_...)")
    if code.startswith(_SCHEMA):
        return SchemaMissing(
            f"the import's tables are missing ({code}); apply the migrations of bridge/supabase"
        )
    return None


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, APIError):
        return str(error.code or "").startswith(_TRANSIENT)
    return isinstance(error, httpx.TransportError)


def _batches(items: Sequence[T]) -> Iterator[tuple[Sequence[T], bool]]:
    """Batches, at least an empty one, and whether each is the last."""
    for start in range(0, max(len(items), 1), BATCH):
        yield items[start : start + BATCH], start + BATCH >= len(items)


def _account(row: Mapping[str, Any]) -> Account:
    secret = row.get("social_account_secrets") or {}
    cursor: CursorState = row["cursor"] or {}
    return Account(
        id=row["id"],
        user_id=row["user_id"],
        provider=Provider(row["provider"]),
        handle=row["handle"],
        server=row["server"],
        token=secret.get("access_token"),
        cursor=cursor,
    )


def _row(post: Post) -> dict[str, Any]:
    return {
        "external_id": post.external_id,
        "author": post.author,
        "content": post.text,
        "language": post.language,
        "url": post.url,
        "published_at": post.published_at.isoformat() if post.published_at else None,
    }


def _topic_rows(topics: Sequence[Topic]) -> list[dict[str, Any]]:
    check_labels(topics)
    return [
        {
            "label": topic.label,
            "keywords": list(topic.keywords),
            "example_post_ids": list(topic.example_post_ids),
            "members": {post_id: float(score) for post_id, score in topic.members.items()},
        }
        for topic in topics
    ]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _vector(numbers: Sequence[float]) -> str:
    # Nine digits: all that the four bytes of pgvector's numbers hold.
    return "[" + ",".join(f"{float(number):.9g}" for number in numbers) + "]"


def _numbers(vector: str) -> list[float]:
    return [float(number) for number in vector.strip("[]").split(",")]
