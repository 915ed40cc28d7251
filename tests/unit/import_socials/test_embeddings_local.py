"""The local embedder: one stable space, near for alike texts, never a broken vector."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.import_socials.embeddings import embedder_from
from tasks.import_socials.embeddings.local import LocalEmbedder

EMBEDDER = LocalEmbedder()
GOLDEN = [(282, -0.215), (106, 0.188), (133, 0.188), (159, -0.188), (333, 0.188)]


def likeness(one: str, other: str) -> float:
    first, second = EMBEDDER.embed([one, other])
    return float(np.dot(first, second))


def test_without_a_key_the_local_embedder_is_chosen() -> None:
    embedder = embedder_from(api_key=None)
    assert (embedder.model, embedder.dimensions) == ("local-words-1-384", 384)


def test_vectors_stored_earlier_stay_comparable() -> None:
    """Numbers written down once: whoever changes the space must give it a new model name."""
    vector = EMBEDDER.embed(["Partial indexes in #Postgres, el café y 天体写真"])[0]
    largest = sorted(range(384), key=lambda i: -abs(vector[i]))[:5]
    assert [(i, round(vector[i], 3)) for i in largest] == GOLDEN


def test_a_text_embeds_the_same_alone_and_in_company() -> None:
    assert EMBEDDER.embed(["a", "espresso grinder", "b"])[1] == EMBEDDER.embed(["espresso grinder"])[0]


@pytest.mark.parametrize(
    ("text", "alike", "unlike"),
    [
        ("new burrs for the grinder", "crema and portafilter", "autovacuum on the big table"),
        ("Der Sauerteig ist aktiv", "sourdough starter doubled", "Lastenrad in der Werkstatt"),
        ("昨夜は望遠鏡で土星を撮影", "telescope under the stars", "自家製麺のスープ"),
        ("indexing Postgres", "a Postgres index", "a postman in Paris"),
    ],
)
def test_alike_texts_are_nearer_than_unlike_ones(text: str, alike: str, unlike: str) -> None:
    assert likeness(text, alike) > likeness(text, unlike) + 0.1


def test_links_and_handles_do_not_move_a_text() -> None:
    assert likeness("espresso grinder", "@ann@x.example espresso grinder https://x.example/postgres") > 0.99


def test_no_texts_give_no_vectors() -> None:
    assert EMBEDDER.embed([]) == []


def test_dimensions_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions=3: use 32 to 4096"):
        LocalEmbedder(3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=200), max_size=4))
def test_any_text_gives_a_finite_vector_of_length_one(texts: list[str]) -> None:
    vectors = EMBEDDER.embed(texts)
    assert len(vectors) == len(texts)
    for vector in vectors:
        assert len(vector) == 384
        assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-4)
