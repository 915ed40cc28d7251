"""feedparser, kept from two of its expressions that a hostile feed would make it run for hours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import feedparser
from feedparser.mixin import _FeedParserMixin

_LONGEST_AUTHOR = 200
_LONGEST_PROLOG = 10_000
_FIRST_ELEMENT = re.compile(rb"<\w")


def parsed_feed(body: bytes, content_type: str) -> Mapping[str, Any]:
    """What feedparser makes of a document.

    Raises:
        ValueError: more stands before the first element than in any feed.
    """
    # The search for entities and the DOCTYPE there is quadratic.
    first = _FIRST_ELEMENT.search(body)
    if first is not None and first.start() > _LONGEST_PROLOG:
        raise ValueError("the feed's prolog is too long")
    # Text would be tried as a file name; a stream is only read.
    parsed: Mapping[str, Any] = feedparser.parse(
        io.BytesIO(body), response_headers={"content-type": content_type}, sanitize_html=False
    )
    return parsed


def _bounded_author(parser: Any, key: str = "author") -> None:
    """The search for an e-mail address in an author's name is quadratic."""
    context = parser._get_context()
    author = context.get(key)
    if isinstance(author, str):
        context[key] = author[:_LONGEST_AUTHOR]
    _find_address(parser, key)


_find_address = _FeedParserMixin._sync_author_detail
_FeedParserMixin._sync_author_detail = _bounded_author
