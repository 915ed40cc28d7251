"""The store without a database: for tests of workflows, and to try an importer out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tasks.import_socials.errors import AccountRemoved
from tasks.import_socials.models import Account, EmbeddedPost, Page, Post, StoredPost, Topic
from tasks.import_socials.store import Added, check_labels


@dataclass
class MemoryStore:
    """Keeps everything in dictionaries; ids of posts are `<account id>/<external id>`."""

    accounts_by_id: dict[str, Account] = field(default_factory=dict)
    posts: dict[str, tuple[Account, Post]] = field(default_factory=dict)
    embeddings: dict[str, tuple[str, list[float]]] = field(default_factory=dict)
    errors: dict[str, str | None] = field(default_factory=dict)
    topics: dict[str, list[Topic]] = field(default_factory=dict)

    @classmethod
    def of(cls, *accounts: Account) -> MemoryStore:
        """A store that holds these accounts and nothing else."""
        return cls({account.id: account for account in accounts})

    def accounts(self, user_id: str) -> list[Account]:
        return [account for account in self.accounts_by_id.values() if account.user_id == user_id]

    def record_import(self, account: Account, error: str | None) -> None:
        self.errors[account.id] = error

    def add_page(self, account: Account, page: Page) -> Added:
        stored = self.accounts_by_id.get(account.id)
        if stored is None:
            raise AccountRemoved(account)
        inserted = updated = 0
        for post in page.posts:
            key = f"{account.id}/{post.external_id}"
            known = self.posts.get(key)
            inserted, updated = inserted + (known is None), updated + (known is not None and known[1] != post)
            if known is not None and known[1].text != post.text:
                self.embeddings.pop(key, None)
            self.posts[key] = (account, post)
        self.accounts_by_id[account.id] = replace(stored, cursor=dict(page.cursor))
        return Added(inserted, updated)

    def posts_to_embed(self, account: Account, model: str) -> list[StoredPost]:
        return [
            StoredPost(key, owner.id, post.text)
            for key, (owner, post) in sorted(self.posts.items())
            if owner.id == account.id and post.text and self.embeddings.get(key, ("",))[0] != model
        ]

    def set_embeddings(self, model: str, embeddings: Sequence[tuple[StoredPost, Sequence[float]]]) -> int:
        current = [
            (post.id, vector)
            for post, vector in embeddings
            if post.id in self.posts and self.posts[post.id][1].text == post.text
        ]
        self.embeddings |= {key: (model, list(vector)) for key, vector in current}
        return len(current)

    def embedded_posts(self, user_id: str, model: str) -> list[EmbeddedPost]:
        return [
            EmbeddedPost(key, owner.id, post.text, self.embeddings[key][1])
            for key, (owner, post) in sorted(self.posts.items())
            if owner.user_id == user_id and self.embeddings.get(key, ("",))[0] == model
        ]

    def members_by_label(self, user_id: str) -> dict[str, set[str]]:
        return {topic.label: set(topic.members) for topic in self.topics.get(user_id, [])}

    def replace_topics(self, user_id: str, topics: Sequence[Topic]) -> None:
        check_labels(topics)
        self.topics[user_id] = list(topics)
