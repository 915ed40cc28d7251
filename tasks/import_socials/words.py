"""Turns a post into the words that carry its subject, in any language.

>>> [[word.text for word in run] for run in content_runs("The V8 heap was at https://x.example #NodeJS")]
[['V8', 'heap'], ['NodeJS']]
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import snowballstemmer  # type: ignore[import-untyped]
from stop_words import AVAILABLE_LANGUAGES, get_stop_words  # type: ignore[import-untyped]

from tasks.import_socials.vocabulary import CONTENT_WORDS, FIELDS, WEAK_WORDS

MAX_CHARACTERS = 6_000  # what a post is about stands at its beginning

_NOISE = re.compile(
    r"""(?:https?://|www\.)\S+                       # links
      | (?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+         # addresses; from their start only, or it is quadratic
      | (?<![\w.])@[\w.-]+(?:@[\w.-]+)?              # handles
      | (?<!\w)/?[ur]/\w+                            # Reddit users and communities
      | (?<![\w.-])[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|dev|app|social|example|html?)\b(?:/\S*)?
      | `{3}.*?(?:`{3}|\Z)                           # blocks of code
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# Scripts written without spaces: kana, Han, Thai, Lao, Khmer, Burmese.
_UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_TOKEN = re.compile(
    rf"(?P<tag>\#(?=\w*[^\W\d_])\w+)|(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<word>[^\W\d_{_UNSPACED}](?:[\w'+#]|-(?=\w)|\.(?=(?:js|io|ts|py|net|ai)\b))*)"
    r"|(?P<gap>[ \t\u00a0]+)|(?P<other>.)",
    re.DOTALL,
)
_UNSPACED_PART = re.compile(r"[\u30a0-\u30ff\u31f0-\u31ff]{2,}|[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_ENDS_OF_SENTENCES = frozenset(".!?:…\n")
_HIRAGANA = re.compile("[\u3040-\u309f]")  # by itself it spells endings and particles
_CAMEL = re.compile(r"(?<=[a-z0-9à-ÿ])(?=[A-ZÀ-Þ][a-zà-ÿ])|_")
_ELISION = re.compile(r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|dell|nell|all|sull|dall|un)'(?=\w{2})", re.IGNORECASE)
_CONTRACTION = re.compile(r"(?:'(?:s|t|re|ve|ll|d|m)|n't|')$", re.IGNORECASE)


class _Stemmer(threading.local):
    """A stemmer of each thread's own: Snowball's keeps the word it works on."""

    def __init__(self) -> None:
        self.stem = snowballstemmer.stemmer("english").stemWord


_STEMMER = _Stemmer()


class Word(NamedTuple):
    """A content word: as written, and the key that counts as the same word.

    `weak` says little about a subject; `initial` begins a sentence, so its capital letter tells nothing.
    """

    text: str
    key: str
    weak: bool = False
    tagged: bool = False
    initial: bool = False


def clean(text: str) -> str:
    """The text without links, addresses, handles and code blocks, in composed Unicode form."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).replace("’", "'")
    return _NOISE.sub(" \n ", text)


def content_runs(text: str) -> list[list[Word]]:
    """Runs of neighbouring content words; stop words and punctuation end a run."""
    tokens = list(_tokens(clean(text)))
    stop = _stop_words_of(fold(text) for kind, text in tokens if kind == "word")
    runs: list[list[Word]] = [[]]
    initial = True
    for kind, token in tokens:
        if kind == "word" and fold(token) not in stop and len(token) > 1:
            runs[-1].append(word(token)._replace(initial=initial))
        elif kind == "tag":
            runs += [[word(part, tagged=True) for part in _parts_of_tag(token)], []]
        elif kind == "unspaced":
            runs += [[part] for part in _unspaced_words(token)] + [[]]
        elif kind != "gap" and runs[-1]:
            runs.append([])
        initial = token in _ENDS_OF_SENTENCES or (initial and kind in ("gap", "other"))
    return [run for run in runs if run]


def word(text: str, tagged: bool = False) -> Word:
    """The `Word` of one token.

    >>> word("Indexes").key == word("indexing").key
    True
    """
    key = stem(fold(text).replace(".", "").replace("-", ""))  # Node.js is nodejs
    return Word(text, key, weak=key in _weak_keys(), tagged=tagged)


def fields_of(key: str) -> tuple[str, ...]:
    """The fields of life in which a word is at home, by its key."""
    return _fields_by_key().get(key, ())


@lru_cache(maxsize=50_000)
def fold(text: str) -> str:
    """Lower case, Latin accents removed; marks of other scripts stay, for there they are letters."""
    lowered = unicodedata.normalize("NFD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in lowered if not "\u0300" <= c <= "\u036f"))


@lru_cache(maxsize=50_000)
def stem(folded: str) -> str:
    """The English stem of a Latin word; anything else as it is."""
    return str(_STEMMER.stem(folded)) if folded.isascii() and folded.isalpha() else folded


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        kind, token = str(match.lastgroup), match.group()
        if kind == "word":
            token = _CONTRACTION.sub("", _ELISION.sub("", token)).strip(".-'")
        if token:
            yield kind, token


def _parts_of_tag(tag: str) -> list[str]:
    """The words inside a hashtag: #TrailRunning is two, #NodeJS is one."""
    return [part for part in _CAMEL.split(tag.lstrip("#")) if part]


def _unspaced_words(run: str) -> Iterator[Word]:
    """Katakana words and Han compounds; a long Han run as overlapping pairs, as most Chinese words are."""
    stop = _unspaced_stop_words()
    parts = _UNSPACED_PART.findall(run) or ([] if _HIRAGANA.search(run) else [run])
    for part in parts:
        pieces = [part] if len(part) <= 4 or "\u30a0" <= part[0] <= "\u30ff" else _pairs(part)
        yield from (Word(piece, piece) for piece in pieces if len(piece) > 1 and piece not in stop)


def _pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(len(text) - 1)]


def _stop_words_of(folded_words: Iterator[str]) -> frozenset[str]:
    """English stop words and those of the post's own language, which is guessed from its stop words.

    A union over all languages would swallow content: German "war" and "die" are English nouns and verbs.
    """
    words = frozenset(folded_words)
    by_language = _stop_words()
    best = max(by_language, key=lambda language: (len(words & by_language[language]), language == "english"))
    return by_language["english"] | by_language[best]


@lru_cache(maxsize=1)
def _stop_words() -> dict[str, frozenset[str]]:
    words = {
        language: frozenset(_CONTRACTION.sub("", fold(word)) for word in get_stop_words(language))
        for language in AVAILABLE_LANGUAGES
    }
    return words | {"english": words["english"] - CONTENT_WORDS}


@lru_cache(maxsize=1)
def _unspaced_stop_words() -> frozenset[str]:
    return frozenset(get_stop_words("japanese")) | frozenset(get_stop_words("chinese"))


@lru_cache(maxsize=1)
def _fields_by_key() -> dict[str, tuple[str, ...]]:
    fields: dict[str, tuple[str, ...]] = {}
    for field, words in FIELDS.items():
        for key in sorted({word(text).key for text in words}):
            fields[key] = (*fields.get(key, ()), field)
    return fields


@lru_cache(maxsize=1)
def _weak_keys() -> frozenset[str]:
    return frozenset(stem(fold(word)) for word in WEAK_WORDS)
