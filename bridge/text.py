"""What text of a run may leave the worker: cleaned, freed of secrets, cut to size.

Task authors pass on what providers and users wrote. Postgres refuses NUL, JSON refuses lone
surrogates, a terminal obeys escape codes, and exception texts carry credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

MESSAGE_LIMIT: Final = 500
"""Characters of a progress message or a step; a bar has no room for more."""

LOG_LINE_LIMIT: Final = 4_000
"""Characters of one log row; longer lines go on in the next row."""

LOG_LIMIT: Final = 64_000
"""Characters of one `log()` call."""

_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_SECRETS: Final = re.compile(
    r"""
      eyJ[\w-]{8,2000}+\.[\w-]{8,}+\.[\w-]*                   # a JSON web token; bounded for eyJeyJeyJ...
    | \bsb_secret_[\w-]+
    | \b(?:sk|rk|pk|gh[opsu]|github_pat|glpat|xox[abpr])[-_][\w-]{16,}  # keys of common providers
    | (?<=://)[^/?\#\s]+(?=@)                                 # user:password of a URL, or a token alone
    | (?i:\bbearer\s+)[\w.~+/=-]{8,}
    | (?i:\bauthorization["']?\s*[=:]\s*["']?basic\s+)[\w+/=-]+
    | (?i:(?:token|api[_-]?key|secret(?:_access)?(?:_?key)?|password|passwd)["']?\s*[=:]\s*["']?)[^\s&"',;]+
    """,
    re.VERBOSE,
)
_SECRET_NAME: Final = re.compile(r"(?i:token|api[_-]?key|secret(?:_access)?(?:_?key)?|password|passwd)\Z")
_HINTS: Final = ("eyJ", "sb_secret_", "://", "-", "_", "earer", "EARER", "=", ":")


def public(text: str) -> str:
    """The text as it may be stored and shown: no control characters, no secrets.

    >>> public("GET https://bob:hunter2@host/feed failed\\x00")
    'GET https://[removed]@host/feed failed'
    """
    if any(hint in text for hint in _HINTS):
        text = _SECRETS.sub("[removed]", text)
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("", text)


def public_json(value: Any) -> Any:
    """The same for every string of a JSON value; what a key calls a secret is removed whole.

    >>> public_json({"note": "token: abc", "password": "hunter2", "tokens": 12})
    {'note': '[removed]', 'password': '[removed]', 'tokens': 12}
    """
    if isinstance(value, str):
        return public(value)
    if isinstance(value, dict):
        return {public(name): _public_member(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [public_json(inner) for inner in value]
    return value


def _public_member(name: str, value: Any) -> Any:
    is_secret = isinstance(value, str) and value and _SECRET_NAME.search(name)
    return "[removed]" if is_secret else public_json(value)


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """The text cut to `limit` characters, the cut shown by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def lines_of(text: str, limit: int = LOG_LINE_LIMIT) -> Iterator[str]:
    """The text in pieces of at most `limit` characters; an empty text is one empty piece."""
    for start in range(0, max(len(text), 1), limit):
        yield text[start : start + limit]
