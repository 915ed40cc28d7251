"""Embeddings from this machine alone: hashed words, word pairs and letters, projected to few dimensions.

Nothing is learnt and nothing is downloaded, so a vector stored last year compares with one made today,
between any two machines. Texts are near each other when they share words, parts of words or a field of
life (`vocabulary.toml`); that is less than a language model knows, and enough to group posts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]
from sklearn.feature_extraction import FeatureHasher
from sklearn.preprocessing import normalize

from tasks.import_socials.words import Word, content_runs, fields_of

DEFAULT_DIMENSIONS = 384

_HASHED_FEATURES = 2**16
_SEED = 20_240_229
_PLACES_PER_FEATURE = 8  # of the dimensions; fewer makes unrelated words collide, more costs time
_WORD, _TAGGED_WORD, _WEAK_WORD, _PAIR, _LETTERS, _FIELD = 1.0, 1.3, 0.25, 0.5, 0.5, 1.2
_NOTHING = "(no words)"  # a vector of zeros has no direction and so no cosine


class LocalEmbedder:
    """Embeds without a network or a model; the same text gives the same vector on every machine.

    >>> len(LocalEmbedder().embed(["pulled a good espresso"])[0])
    384
    """

    def __init__(self, dimensions: int = DEFAULT_DIMENSIONS) -> None:
        if not 32 <= dimensions <= 4096:
            raise ValueError(f"dimensions={dimensions}: use 32 to 4096; 384 is the default")
        self.dimensions = dimensions
        self.model = f"local-words-1-{dimensions}"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 a text, in the order of the texts."""
        if not texts:
            return []
        hasher = FeatureHasher(n_features=_HASHED_FEATURES, input_type="pair")
        hashed = hasher.transform(list(_features(text).items()) for text in texts)
        vectors = (hashed @ _projection(self.dimensions)).toarray()
        rows: list[list[float]] = normalize(vectors).astype(np.float32).tolist()
        return rows


def _features(text: str) -> dict[str, float]:
    """Feature to weight; a repeated feature counts by its logarithm, so a refrain does not drown the rest."""
    counts: Counter[str] = Counter()
    weights: dict[str, float] = {}
    for run in content_runs(text):
        for feature, weight in _features_of_run(run):
            counts[feature] += 1
            weights[feature] = max(weight, weights.get(feature, 0))
    if not weights:
        return {_NOTHING: 1.0}
    return {feature: weight * (1 + math.log(counts[feature])) for feature, weight in weights.items()}


def _features_of_run(run: list[Word]) -> Iterator[tuple[str, float]]:
    for word in run:
        weight = _WEAK_WORD if word.weak else _TAGGED_WORD if word.tagged else _WORD
        yield f"w {word.key}", weight
        for field in fields_of(word.key):
            yield f"f {field}", _FIELD
        parts = _letters(word.key)
        for part in parts:
            yield f"l {part}", _LETTERS * weight / math.sqrt(len(parts))
    for left, right in pairwise(run):
        if not (left.weak or right.weak):
            yield f"p {left.key} {right.key}", _PAIR


def _letters(key: str) -> list[str]:
    """Overlapping parts of a word, so that inflections and compounds meet; two characters of Han or kana."""
    if key[0] >= "\u3040":
        return [key[i : i + 2] for i in range(len(key) - 1)] or [key]
    marked = f"<{key}>"
    return [marked[i : i + 4] for i in range(max(1, len(marked) - 3))]


@lru_cache(maxsize=2)
def _projection(dimensions: int) -> Any:
    """A sparse random projection; numpy promises that the stream of `RandomState` never changes."""
    random = np.random.RandomState(_SEED)
    shape = (_HASHED_FEATURES, _PLACES_PER_FEATURE)
    columns = random.randint(0, dimensions, size=shape).ravel()
    signs = random.choice(np.array([-1.0, 1.0], dtype=np.float32), size=shape).ravel()
    starts = np.arange(0, columns.size + 1, _PLACES_PER_FEATURE)
    return sparse.csr_matrix((signs, columns, starts), shape=(_HASHED_FEATURES, dimensions))
