"""Word lists, read once: words that never name a subject, and words of one field of life."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

_FILE: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

WEAK_WORDS: Final = frozenset(" ".join(_FILE["weak"].values()).split())
"""Words that say little about a subject: verbs of every day, feelings, times, amounts, talk about posting."""

CONTENT_WORDS: Final = frozenset(_FILE["content"].split())
"""Words that name subjects although lists of English stop words hold them."""

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(words.split()) for name, words in _FILE["fields"].items()
}
"""Field of life to its telling words, single words in lower case, several languages."""
