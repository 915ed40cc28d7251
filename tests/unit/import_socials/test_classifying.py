"""Classification over the in-memory store: embeddings in batches, topics that keep their names."""

from __future__ import annotations

from dataclasses import replace

from tasks.demo.demo_posts import read_accounts
from tasks.import_socials.classifying import embed_account, refresh_topics
from tasks.import_socials.embeddings import embedder_from
from tasks.import_socials.memory_store import MemoryStore
from tasks.import_socials.models import Account, Page, Post, Provider

USER = "0a1b2c3d-0000-4000-8000-00000000000a"
ACCOUNT = Account("a1", USER, Provider.MASTODON, "maya")


def imported(store: MemoryStore, count: int) -> None:
    written = [post for one in read_accounts() if one.user == "maya" for post in one.posts if post.own]
    posts = [Post(str(number), "maya", post.text) for number, post in enumerate(written[:count])]
    store.add_page(ACCOUNT, Page(posts, cursor={}, is_last=True))


def test_a_topic_keeps_its_name_when_more_posts_come() -> None:
    store, embedder = MemoryStore.of(ACCOUNT), embedder_from(api_key=None)
    imported(store, 60)
    assert [done for done, _ in embed_account(ACCOUNT, store, embedder)]
    first = refresh_topics(USER, store, embedder.model)
    assert first
    renamed = [replace(topic, label=f"my {topic.label}") for topic in first]
    store.replace_topics(USER, renamed)
    imported(store, 64)
    list(embed_account(ACCOUNT, store, embedder))
    again = refresh_topics(USER, store, embedder.model)
    assert {topic.label for topic in renamed} <= {topic.label for topic in again}


def test_what_is_embedded_is_not_embedded_again() -> None:
    store, embedder = MemoryStore.of(ACCOUNT), embedder_from(api_key=None)
    imported(store, 10)
    assert list(embed_account(ACCOUNT, store, embedder)) == [(10, 10)]
    assert list(embed_account(ACCOUNT, store, embedder)) == []
