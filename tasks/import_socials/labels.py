"""Names for groups of posts: phrases that really occur in them, and rarely elsewhere.

Class-based TF-IDF over phrases: a phrase counts by how many posts of the group hold it, by how rare it is
among all posts, and by how much of its use falls into the group.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.import_socials.words import Word, fields_of, fold

_MOST_WORDS = 3
_MOST_KEYWORDS = 8
_MOST_RANKED = 100
_OF_TWO_WORDS, _OF_THREE_WORDS, _TAGGED, _OF_THE_FIELD, _PROPER_NAME = 1.5, 1.4, 1.3, 1.3, 1.25
_HALF_WEAK, _NOT_A_NOUN, _QUOTATION = 0.7, 0.5, 0.3
_FEW = 4  # posts
_ENOUGH_OF_A_NAME = 0.3
_ENOUGH_TO_SAY_MORE = 0.2  # of the posts
_CHOICE_OF_SECOND = 4
_AS_MUCH = 1.3  # times the posts of a second word: then that one is as much the subject as the first
_ENOUGH_ALONE = 0.4  # of the posts; a single word that covers fewer gets a second one beside it
# Rules of thumb of English: what ends so is seldom the name of a thing.
_ENDINGS_OF_OTHERS = ("ly", "ed", "ing", "ous", "ful", "able", "ible", "less", "ish", "est", "ier")


class Name(NamedTuple):
    """What a group is called, and the phrases that tell it apart, the most telling first."""

    label: str
    keywords: tuple[str, ...]


class _Use(NamedTuple):
    keys: tuple[str, ...]
    text: str  # as written
    tagged: bool
    weak: bool  # one of its words says little
    initial: bool  # begins a sentence


@dataclass(slots=True)
class _Phrase:
    """A phrase within a group: in how many of its posts, and how it is written there."""

    posts: int = 0
    uses: Counter[_Use] = field(default_factory=Counter)

    @property
    def best(self) -> _Use:
        """The way it is written most often; several words rather than the hashtag made of them."""
        return min(
            self.uses, key=lambda u: (-len(u.text.split()), u.initial, u.tagged, -self.uses[u], u.text)
        )

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.best.keys)


class Phrasebook:
    """The phrases of all posts of a person, from which groups of the posts get their names."""

    def __init__(self, posts: Sequence[list[list[Word]]]) -> None:
        found = [_phrases(post) for post in posts]
        self._everywhere = Counter(key for post in found for key in post)
        # A phrase of one post can name no group, and most phrases are such.
        self._posts = [{k: uses for k, uses in post.items() if self._everywhere[k] > 1} for post in found]

    def names(self, groups: Iterable[Sequence[int]]) -> Iterator[Name | None]:
        """A name for each group of post numbers; none repeats another or a part of it.

        None stands where no phrase is shared by enough of the posts: such a group has no subject.
        """
        taken: list[frozenset[str]] = []
        for group in groups:
            ranked = self._ranked(group)[:_MOST_RANKED]
            free = [phrase for phrase in ranked if not any(_overlap(phrase.keys, other) for other in taken)]
            label = _label(free, len(group))
            shared = _distinct([*label, *(phrase for phrase in ranked if phrase.posts > 1)], _MOST_KEYWORDS)
            if not label or not _is_subject(label[0], shared, len(group)):
                yield None
                continue
            taken += [phrase.keys for phrase in label]
            keywords = tuple(phrase.best.text for phrase in shared)
            yield Name(" & ".join(phrase.best.text for phrase in label), keywords)

    def leading_word(self, group: Sequence[int]) -> str | None:
        """The key of the single word that tells most about the group."""
        ranked = (phrase.best.keys for phrase in self._ranked(group) if phrase.posts > 1)
        return next((keys[0] for keys in ranked if len(keys) == 1), None)

    def main_field(self, group: Sequence[int]) -> str | None:
        """The field of life that most words of the group belong to."""
        return _main_field(self._within(group).values())

    def _ranked(self, group: Sequence[int]) -> list[_Phrase]:
        phrases = self._within(group)
        field = _main_field(phrases.values())
        scores = {key: self._score(key, phrase, field) for key, phrase in phrases.items()}
        return [phrases[key] for key in sorted(scores, key=lambda key: (-scores[key], key))]

    def _within(self, group: Sequence[int]) -> dict[str, _Phrase]:
        phrases: dict[str, _Phrase] = defaultdict(_Phrase)
        for number in group:
            for key, uses in self._posts[number].items():
                phrases[key].posts += 1
                phrases[key].uses.update(uses)
        return phrases

    def _score(self, key: str, phrase: _Phrase, field: str | None) -> float:
        everywhere = self._everywhere[key]
        rarity = math.log(1 + len(self._posts) / everywhere)
        return phrase.posts * rarity * (phrase.posts / everywhere) * _shape(phrase, field)


def _main_field(phrases: Iterable[_Phrase]) -> str | None:
    """The field of life that most words of a group belong to."""
    counts: Counter[str] = Counter()
    for phrase in phrases:
        if len(phrase.best.keys) == 1:
            counts.update(dict.fromkeys(fields_of(phrase.best.keys[0]), phrase.posts))
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None


def _is_subject(label: _Phrase, shared: Sequence[_Phrase], size: int) -> bool:
    """One word shared by a few posts is chance: more phrases, or most of the posts, must agree."""
    if size <= _FEW and len(label.best.keys) == 1 and not label.best.tagged:
        return len(shared) > 2 or [phrase.posts for phrase in shared] == [size, size]
    return len(shared) > 1 or len(label.best.keys) > 1 or label.posts >= 0.6 * size


def _shape(phrase: _Phrase, field: str | None) -> float:
    """How much the form of a phrase speaks for it as a name."""
    use = phrase.best
    shape = {1: 1.0, 2: _OF_TWO_WORDS, 3: _OF_THREE_WORDS}[min(len(use.keys), _MOST_WORDS)]
    if len(use.keys) > 1 and phrase.posts == 1:
        shape = _QUOTATION
    if any(use.tagged for use in phrase.uses):
        shape *= _TAGGED
    if any(field in fields_of(key) for key in use.keys):
        shape *= _OF_THE_FIELD
    if use.text != use.text.lower() and phrase.posts > 2:
        shape *= _PROPER_NAME
    if use.weak:
        shape *= _HALF_WEAK
    if len(use.keys) == 1 and use.text.isascii() and fold(use.text).endswith(_ENDINGS_OF_OTHERS):
        shape *= _NOT_A_NOUN
    return shape


def _label(ranked: Sequence[_Phrase], size: int) -> list[_Phrase]:
    """One phrase, or two single words where one alone stands for too few of the posts."""
    needed = max(2, min(math.ceil(size / 4), 3 + size // 20))
    best = next((phrase for phrase in ranked if phrase.posts >= needed), None)
    if best is None:
        return []
    best = next((phrase for phrase in ranked if _says_more(phrase, best, size)), best)
    if len(best.best.keys) > 1:
        return [best]
    others = _distinct([best, *(phrase for phrase in ranked if phrase.posts > 1)], 1 + _CHOICE_OF_SECOND)[1:]
    second = max(others, key=lambda phrase: phrase.posts, default=None)
    is_known = second and second.posts >= _ENOUGH_OF_A_NAME * size
    if second and is_known and best.best.text.islower() and not second.best.text.islower():
        return [second, best]  # a name says more than a common noun: Postgres & index
    if second is None or _ENOUGH_ALONE * size <= best.posts > _AS_MUCH * second.posts:
        return [best]
    return sorted([best, second], key=lambda phrase: -phrase.posts)


def _says_more(phrase: _Phrase, than: _Phrase, size: int) -> bool:
    """Whether a phrase holds a word and makes it clearer: "board game" for "game"."""
    longer = len(than.keys) == 1 and than.keys < phrase.keys and not phrase.best.weak
    return longer and phrase.posts >= max(2, _ENOUGH_TO_SAY_MORE * size)


def _phrases(post: list[list[Word]]) -> dict[str, list[_Use]]:
    """The phrases of a post under the key at which their spellings meet: #trailrunning, trail running."""
    phrases: dict[str, list[_Use]] = defaultdict(list)
    for run in post:
        for words in _parts(run):
            phrases[_key(words)].append(_use(words))
    return phrases


def _parts(run: list[Word]) -> Iterator[list[Word]]:
    """Parts of a run that may name something. A hashtag is whole: half of #IchBinHanna names nothing."""
    if run[0].tagged:
        yield run
        return
    for start in range(len(run)):
        for end in range(start + 1, min(len(run), start + _MOST_WORDS) + 1):
            words = run[start:end]
            weak = sum(word.weak for word in words)
            if weak == 0 or (weak == 1 and len(words) == 2):
                yield words


def _key(words: list[Word]) -> str:
    # Stemmed at its end only, as the hashtag made of the words is.
    return "".join(fold(word.text) for word in words[:-1]) + words[-1].key


def _use(words: list[Word]) -> _Use:
    tagged = words[0].tagged
    text = ("" if tagged else " ").join(word.text for word in words)
    return _Use(
        tuple(word.key for word in words), text, tagged, any(word.weak for word in words), words[0].initial
    )


def _distinct(ranked: Sequence[_Phrase], most: int) -> list[_Phrase]:
    """The first phrases that share no word with one before them."""
    chosen: list[_Phrase] = []
    for phrase in ranked:
        if len(chosen) == most:
            break
        if not any(_overlap(phrase.keys, other.keys) for other in chosen):
            chosen.append(phrase)
    return chosen


def _overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a word of one begins one of the other: "tomat" and "tomate", not "dough" and "sourdough"."""
    return any(a.startswith(b) or b.startswith(a) for a in one for b in other)
