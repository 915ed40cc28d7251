"""Where accounts, posts and topics are kept: the interfaces.

`SupabaseStore` stands in `supabase_store.py`, its twin without a database in `memory_store.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tasks.import_socials.models import Account, EmbeddedPost, Page, StoredPost, Topic


class Added(NamedTuple):
    """What became of a page's posts: new ones, and known ones with a changed text."""

    inserted: int
    updated: int


class AccountStore(Protocol):
    """The accounts that users connected."""

    def accounts(self, user_id: str) -> list[Account]:
        """The user's accounts with their tokens and cursors, oldest first."""

    def record_import(self, account: Account, error: str | None) -> None:
        """Notes on the account that its import ended, well or with a public error line."""


class PostStore(Protocol):
    """The posts of accounts; every method may be repeated."""

    def add_page(self, account: Account, page: Page) -> Added:
        """Stores a page's posts and then its cursor; raises AccountRemoved where the account is gone."""

    def posts_to_embed(self, account: Account, model: str) -> list[StoredPost]:
        """The account's posts with a text and without an embedding of this model."""

    def set_embeddings(self, model: str, embeddings: Sequence[tuple[StoredPost, Sequence[float]]]) -> int:
        """Sets embeddings; passes over posts that changed since they were read. Returns how many it set."""

    def embedded_posts(self, user_id: str, model: str) -> list[EmbeddedPost]:
        """All posts of the user that have an embedding of this model."""


class TopicStore(Protocol):
    """The topics of users."""

    def members_by_label(self, user_id: str) -> dict[str, set[str]]:
        """The ids of the posts in each of the user's present topics; at most a thousand of a topic."""

    def replace_topics(self, user_id: str, topics: Sequence[Topic]) -> None:
        """Puts these topics in the place of all the user's; labels must differ from each other."""


class Store(AccountStore, PostStore, TopicStore, Protocol):
    """All that the workflow keeps."""


def check_labels(topics: Sequence[Topic]) -> None:
    """Raises ValueError where two topics of a user have one label."""
    labels = [topic.label for topic in topics]
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"topic labels must differ: {repeated}")
