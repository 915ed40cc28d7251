"""What a person posts about, over all of their accounts: groups of alike posts, each with a name.

Pure functions: the same posts give the same topics. Posts that fit no group belong to no topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from tasks.import_socials.labels import Name, Phrasebook
from tasks.import_socials.models import EmbeddedPost, Topic
from tasks.import_socials.words import Word, clean, content_runs

_Floats = npt.NDArray[np.float32]

_SMALLEST = 3  # posts; two posts that are alike are a coincidence
_MOST_CLUSTERED = 3_000  # memory grows with its square, 36 MB a matrix here; the others join the groups found
_SHARE_OF_WORDS = 0.3  # of the likeness; the rest are the vectors
_CUT = 0.9  # mean distance up to which groups are joined; 1 is "nothing in common"
_JOIN, _CLEARLY = (
    0.08,
    1.5,
)  # a leftover post joins a group this near, if that many times nearer than the next
_SAME_FIELD = 0.04  # mean likeness from which groups of one field are joined
_UNRELATED_SHARE = 20  # percentile of likeness that is taken for "unrelated"


def find_topics(posts: Sequence[EmbeddedPost], *, most: int = 12) -> list[Topic]:
    """At most `most` topics, the largest first; fewer or none when the posts have little in common.

    The members of a topic are ordered by score (0..1), the nearest to its heart first; the examples
    are the first three that say something. Embeddings must come from one model.
    """
    texts, runs = _distinct_texts(posts)
    if len(texts) < _SMALLEST:
        return []
    likeness = _Likeness.of([group[0].embedding for group in texts], runs)
    phrasebook = Phrasebook(runs)
    groups = _merge_by_field(_grown(likeness, _seed_groups(likeness)), likeness, phrasebook)
    groups = _merge_by_leading_word(groups, phrasebook)
    groups = sorted(groups, key=lambda group: (-sum(len(texts[i]) for i in group), group))
    named = ((name, group) for name, group in zip(phrasebook.names(groups), groups, strict=True) if name)
    return [
        _topic(name, group, likeness.to_group(group)[group], texts) for name, group in islice(named, most)
    ]


def _distinct_texts(posts: Sequence[EmbeddedPost]) -> tuple[list[list[EmbeddedPost]], list[list[list[Word]]]]:
    """Posts by text, and the words of each; the same words on three networks are one text.

    Posts that name nothing are left out.
    """
    by_text: dict[str, list[EmbeddedPost]] = {}
    runs: dict[str, list[list[Word]]] = {}
    for post in posts:
        found = content_runs(post.text)
        if any(not word.weak for run in found for word in run):
            key = " ".join(word.key for run in found for word in run)
            by_text.setdefault(key, []).append(post)
            runs[key] = found
    # Sorted, so that the order in which posts were stored decides nothing.
    keys = sorted(by_text)
    return [sorted(by_text[key], key=lambda post: post.id) for key in keys], [runs[key] for key in keys]


@dataclass(frozen=True, slots=True)
class _Likeness:
    """How alike texts are: 0 as unrelated texts of this person are, 1 the same."""

    vectors: _Floats
    words: Any  # sparse, weighted by how rare a word is with this person
    unrelated: float

    @classmethod
    def of(cls, vectors: Sequence[Sequence[float]], runs: Sequence[list[list[Word]]]) -> _Likeness:
        strong = [[word.key for run in post for word in run if not word.weak] for post in runs]
        dense = normalize(np.nan_to_num(np.asarray(vectors, dtype=np.float32)))
        words = TfidfVectorizer(analyzer=_as_is, sublinear_tf=True, dtype=np.float32).fit_transform(strong)
        return cls(dense, words, _likeness_of_unrelated(dense, words))

    def among(self, rows: Sequence[int]) -> _Floats:
        words = self.words[rows]
        return self._joined(self.vectors[rows] @ self.vectors[rows].T, (words @ words.T).toarray())

    def to_group(self, group: Sequence[int]) -> _Floats:
        """The mean likeness of every text to the texts of a group."""
        by_words = np.asarray(self.words @ self.words[group].mean(axis=0).T).ravel()
        return self._joined(self.vectors @ self.vectors[group].mean(axis=0), by_words)

    def _joined(self, by_vectors: Any, by_words: Any) -> _Floats:
        scaled = (by_vectors - self.unrelated) / (1 - self.unrelated)
        joined: _Floats = (scaled * (1 - _SHARE_OF_WORDS) + by_words * _SHARE_OF_WORDS).astype(np.float32)
        return joined


def _likeness_of_unrelated(vectors: _Floats, words: Any) -> float:
    """How near a model puts texts that have nothing to do with each other: 0 for one, 0.7 for another.

    Measured at pairs without a common word, of which the farther ones are taken for unrelated.
    """
    rows = _spread(len(vectors), 1_000)
    upper = np.triu_indices(len(rows), 1)
    apart = (words[rows] @ words[rows].T).toarray()[upper] == 0
    pairs = (vectors[rows] @ vectors[rows].T)[upper][apart]
    return float(np.clip(np.percentile(pairs, _UNRELATED_SHARE), 0, 0.9)) if len(pairs) else 0.0


def _as_is(keys: list[str]) -> list[str]:
    return keys


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indexes, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most))})


def _seed_groups(likeness: _Likeness) -> list[list[int]]:
    rows = _spread(len(likeness.vectors), _MOST_CLUSTERED)
    distance = np.clip(1 - likeness.among(rows), 0, 2)
    condensed = distance[np.triu_indices(len(rows), 1)]
    tree = linkage(condensed, method="average")
    found: dict[int, list[int]] = {}
    for row, number in zip(rows, fcluster(tree, _CUT, criterion="distance"), strict=True):
        found.setdefault(int(number), []).append(row)
    return sorted(group for group in found.values() if len(group) >= _SMALLEST)


def _grown(likeness: _Likeness, groups: list[list[int]]) -> list[list[int]]:
    """Groups with the leftover texts that clearly belong to one of them."""
    for _ in range(2 if groups else 0):
        near = np.stack([likeness.to_group(group) for group in groups], axis=1)
        taken = {row for group in groups for row in group}
        grown = [list(group) for group in groups]
        for row in (row for row in range(len(near)) if row not in taken):
            order = np.argsort(-near[row], kind="stable")
            best = float(near[row, order[0]])
            second = float(near[row, order[1]]) if len(order) > 1 else 0.0
            if best >= _JOIN and best >= _CLEARLY * second:
                grown[int(order[0])].append(row)
        groups = [sorted(group) for group in grown]
    return groups


def _merge_by_field(groups: list[list[int]], likeness: _Likeness, phrasebook: Phrasebook) -> list[list[int]]:
    """Groups of one field of life that are near each other: the same subject in two languages, for one."""
    merged: list[tuple[str | None, list[int]]] = []
    for group in sorted(groups, key=lambda group: (-len(group), group)):
        field = phrasebook.main_field(group)
        near = likeness.to_group(group)
        home = next((g for f, g in merged if f and f == field and near[g].mean() >= _SAME_FIELD), None)
        if home is None:
            merged.append((field, list(group)))
        else:
            home.extend(group)
    return [sorted(group) for _, group in merged]


def _merge_by_leading_word(groups: list[list[int]], phrasebook: Phrasebook) -> list[list[int]]:
    """Groups whose most telling word is the same are one topic to a person."""
    merged: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        word = phrasebook.leading_word(group) or f"({number})"
        merged.setdefault(word, []).extend(group)
    return [sorted(group) for group in merged.values()]


def _topic(name: Name, group: list[int], near: _Floats, texts: list[list[EmbeddedPost]]) -> Topic:
    scored = sorted(zip(group, near.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    members = {post.id: round(min(1.0, max(0.0, score)), 4) for i, score in scored for post in texts[i]}
    # A bare "#espresso" is at the heart of its topic and says nothing to a reader.
    told = sorted((i for i, _ in scored), key=lambda i: len(clean(texts[i][0].text).split()) < 6)
    return Topic(name.label, name.keywords, members, tuple(texts[i][0].id for i in told[:3]))
