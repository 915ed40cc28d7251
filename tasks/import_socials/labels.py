"""Names for groups of posts: phrases that really occur in them, and rarely elsewhere.

Class-based TF-IDF over phrases: a phrase counts by how many posts of the group hold it, by how rare it is
among all posts, and by how much of its use falls into the group.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.import_socials.words import Word, fold, stem

_Runs = list[list[Word]]  # one post: runs of neighbouring content words

_MOST_WORDS = 3
_MOST_KEYWORDS = 8
_OF_TWO_WORDS, _OF_THREE_WORDS, _TAGGED, _HALF_WEAK, _NOT_A_NOUN = 1.5, 1.4, 1.15, 0.7, 0.5
_ENOUGH_ALONE = 0.4  # of the posts; a single word that covers fewer gets a second one beside it
# Rules of thumb of English: what ends so is seldom the name of a thing.
_ENDINGS_OF_OTHERS = ("ly", "ed", "ing", "ous", "ful", "able", "ible", "less", "ish", "est", "ier")


class _Use(NamedTuple):
    words: tuple[str, ...]  # keys
    text: str  # as written
    tagged: bool
    weak: bool  # one of its words says little


@dataclass(slots=True)
class _Phrase:
    """A phrase within a group: in how many of its posts, and how it is written."""

    posts: int = 0
    uses: Counter[_Use] = field(default_factory=Counter)

    @property
    def best(self) -> _Use:
        """The way it is written most often; written out rather than as a hashtag."""
        return min(self.uses, key=lambda use: (use.tagged, -len(use.words), -self.uses[use], use.text))

    @property
    def text(self) -> str:
        best = self.best
        forms = Counter(
            {
                use.text: n
                for use, n in self.uses.items()
                if (use.tagged, len(use.words)) == (best.tagged, len(best.words))
            }
        )
        return min(forms, key=lambda text: (-forms[text], text))


def name_groups(
    groups: Sequence[Sequence[_Runs]], posts: Sequence[_Runs]
) -> list[tuple[str, tuple[str, ...]]]:
    """Label and keywords of each group, out of all `posts`; no label repeats another or a part of it."""
    everywhere = _posts_by_phrase(posts)
    named: list[tuple[str, tuple[str, ...]]] = []
    taken: list[frozenset[str]] = []
    for number, group in enumerate(groups, 1):
        ranked = _ranked(group, everywhere, len(posts))
        free = [phrase for phrase in ranked if not any(_overlap(_keys(phrase), other) for other in taken)]
        label = _label(free, len(group))
        taken += [_keys(phrase) for phrase in label]
        keywords = tuple(phrase.text for phrase in _distinct(ranked, _MOST_KEYWORDS))
        named.append((" & ".join(phrase.text for phrase in label) or f"topic {number}", keywords))
    return named


def leading_word(group: Sequence[_Runs], posts: Sequence[_Runs]) -> str | None:
    """The key of the single word that tells most about the group."""
    ranked = _ranked(group, _posts_by_phrase(posts), len(posts))
    return next((phrase.best.words[0] for phrase in ranked if len(phrase.best.words) == 1), None)


def _label(ranked: list[_Phrase], size: int) -> list[_Phrase]:
    best = _distinct(ranked, 2)
    alone = best and (len(best[0].best.words) > 1 or best[0].posts >= _ENOUGH_ALONE * size)
    second_tells = len(best) == 2 and best[1].posts > 1
    return best[:1] if alone or not second_tells else best


def _ranked(group: Sequence[_Runs], everywhere: Counter[str], total: int) -> list[_Phrase]:
    phrases: dict[str, _Phrase] = defaultdict(_Phrase)
    for post in group:
        uses = list(_phrases(post))
        for key in {key for key, _ in uses}:
            phrases[key].posts += 1
        for key, use in uses:
            phrases[key].uses[use] += 1
    scores = {key: _score(phrase, everywhere[key], total) for key, phrase in phrases.items()}
    return [phrases[key] for key in sorted(scores, key=lambda key: (-scores[key], key))]


def _score(phrase: _Phrase, posts_everywhere: int, total: int) -> float:
    use = phrase.best
    share_here = phrase.posts / posts_everywhere
    shape = {1: 1.0, 2: _OF_TWO_WORDS, 3: _OF_THREE_WORDS}[len(use.words)]
    if len(use.words) > 1 and phrase.posts == 1:
        shape = 0.3  # a phrase that occurs once is a quotation, not a subject
    if any(use.tagged for use in phrase.uses):
        shape *= _TAGGED
    if use.weak:
        shape *= _HALF_WEAK
    if use.text.isascii() and fold(use.text).endswith(_ENDINGS_OF_OTHERS) and len(use.words) == 1:
        shape *= _NOT_A_NOUN
    return phrase.posts * math.log(1 + total / posts_everywhere) * share_here * shape


def _posts_by_phrase(posts: Sequence[_Runs]) -> Counter[str]:
    return Counter(key for post in posts for key in {key for key, _ in _phrases(post)})


def _phrases(post: _Runs) -> Iterator[tuple[str, _Use]]:
    """Every phrase of up to three words with the key under which its spellings meet: #trailrunning, trail running."""
    for run in post:
        for start in range(len(run)):
            for end in range(start + 1, min(len(run), start + _MOST_WORDS) + 1):
                words = run[start:end]
                if any(not word.weak for word in words) and not (
                    len(words) == 3 and any(w.weak for w in words)
                ):
                    yield _key(words), _use(words)


def _key(words: list[Word]) -> str:
    if len(words) == 1:
        return words[0].key
    return stem("".join(fold(word.text) for word in words[:-1]) + fold(words[-1].text))


def _use(words: list[Word]) -> _Use:
    keys = tuple(word.key for word in words)
    text = " ".join(word.text for word in words)
    return _Use(keys, text, words[0].tagged, any(word.weak for word in words))


def _distinct(ranked: Sequence[_Phrase], most: int) -> list[_Phrase]:
    """The first phrases that share no word with one before them."""
    chosen: list[_Phrase] = []
    for phrase in ranked:
        if len(chosen) == most:
            break
        if not any(_overlap(_keys(phrase), _keys(other)) for other in chosen):
            chosen.append(phrase)
    return chosen


def _keys(phrase: _Phrase) -> frozenset[str]:
    return frozenset(phrase.best.words)


def _overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    return any(a in b or b in a for a in one for b in other)
