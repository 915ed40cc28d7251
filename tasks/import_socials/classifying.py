"""Classifies what was imported: embeddings for new posts, and topics over all of a user's posts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tasks.import_socials.embeddings import Embedder
from tasks.import_socials.models import Account, Topic
from tasks.import_socials.stable_topics import keep_stable
from tasks.import_socials.store import PostStore, TopicStore

_BATCH = 100


class ClassifyStore(PostStore, TopicStore, Protocol):
    """What a classification needs of the store."""


def embed_account(account: Account, store: PostStore, embedder: Embedder) -> Iterator[tuple[int, int]]:
    """Give the account's new posts their embeddings; yields (done, of) after each batch.

    Raises:
        EmbeddingError: the embedding API can't be used; what was embedded so far is stored.
    """
    posts = store.posts_to_embed(account, embedder.model)
    for start in range(0, len(posts), _BATCH):
        batch = posts[start : start + _BATCH]
        vectors = embedder.embed([post.text for post in batch])
        store.set_embeddings(embedder.model, list(zip(batch, vectors, strict=True)))
        yield start + len(batch), len(posts)


def refresh_topics(user_id: str, store: ClassifyStore, model: str) -> Sequence[Topic]:
    """Find the user's topics over all accounts anew; one that goes on from a former one keeps its name."""
    from tasks.import_socials.topics import find_topics  # loads scikit-learn, which costs a second

    found = find_topics(store.embedded_posts(user_id, model))
    topics = keep_stable(store.members_by_label(user_id), found)
    store.replace_topics(user_id, topics)
    return topics
