"""Plain text from what providers send: HTML to text, and text that Postgres and JSON accept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from html import unescape
from typing import NamedTuple

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString

TEXT_LIMIT = 100_000
"""Characters of one post; what lies beyond says nothing new of its topic."""

MARKUP_LIMIT = 5 * TEXT_LIMIT

ID_LIMIT = 500

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_PARAGRAPHS = frozenset(
    ("p", "div", "blockquote", "ul", "ol", "pre", "table", "section", "article", "figure", "hr")
) | {f"h{level}" for level in range(1, 7)}
_LINES = frozenset(("br", "li", "tr", "dt", "dd", "figcaption"))
_DROPPED = frozenset(("script", "style", "template", "noscript", "iframe", "object", "head"))
_BREAK = "\ue000"
"""A line break that is meant, told apart from one of the source; a character of no meaning of its own."""

_MARKUP = re.compile(r"<[a-zA-Z/!?]")
_UNCLOSED = re.compile(r"<(?=[^<>]*(?:<|\Z))")


def clean(text: str) -> str:
    """The text without what Postgres or JSON refuse (NUL, lone surrogates), trimmed and bounded.

    >>> clean("a\\x00b \\ud83d ")
    'ab ?'
    """
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.encode("utf-8", "replace").decode("utf-8")[:TEXT_LIMIT].strip()


def html_to_text(markup: str) -> str:
    """The text a reader of the HTML sees: paragraphs and breaks as line breaks, entities resolved.

    Follows Mastodon's own rendering of links: `invisible` spans are left out, `ellipsis` ones end in «…».

    >>> html_to_text("<p>One&amp;two<br>three</p><p>four</p>")
    'One&two\\nthree\\n\\nfour'
    """
    markup = _closed_tags_only(markup[:MARKUP_LIMIT])
    if not _MARKUP.search(markup):
        return clean(_tidy(unescape(markup)))
    return clean(_tidy("".join(_pieces(BeautifulSoup(markup, "html.parser")))))


def _closed_tags_only(markup: str) -> str:
    """The markup without comments, declarations and what only looks like a tag.

    Those make html.parser search to the end of the text for each of them, in quadratic time.
    """
    for start, end in (("<!--", "-->"), ("<!", ">"), ("<?", ">")):
        kept, *rest = markup.split(start)
        parts = [kept]
        for number, piece in enumerate(rest):
            inside, found, after = piece.partition(end)
            parts.append(after if found else "" if number < len(rest) - 1 else inside)
        markup = "".join(parts)
    return _UNCLOSED.sub("&lt;", markup)


def _pieces(soup: BeautifulSoup) -> Iterator[str]:
    """The texts of a document with marks where lines break; without recursion, hostile HTML nests deeply."""
    stack: list[PageElement | _End] = [soup]
    preformatted = 0
    while stack:
        node = stack.pop()
        if isinstance(node, _End):
            preformatted -= node.was_preformatted
            yield node.text
        elif isinstance(node, Tag) and not _is_dropped(node):
            before, after = _breaks(node)
            is_preformatted = node.name == "pre"
            preformatted += is_preformatted
            yield before
            stack.append(_End(after, is_preformatted))
            stack += reversed(node.contents)
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            # Line breaks of the source are white space, except in preformatted text.
            yield str(node) if preformatted else re.sub(r"\s+", " ", str(node))


class _End(NamedTuple):
    text: str
    was_preformatted: bool


def _is_dropped(tag: Tag) -> bool:
    return tag.name in _DROPPED or (tag.name == "span" and "invisible" in (tag.get("class") or ()))


def _breaks(tag: Tag) -> tuple[str, str]:
    """The marks before and after a tag's text."""
    if tag.name in _PARAGRAPHS:
        return _BREAK * 2, _BREAK * 2
    if tag.name in _LINES:
        return _BREAK, ""
    return "", "…" if tag.name == "span" and "ellipsis" in (tag.get("class") or ()) else ""


def _tidy(text: str) -> str:
    text = text.replace("\xa0", " ").replace("\u200b", "")
    # By splitting: an expression that looks for blanks before a break is quadratic in a run of blanks.
    text = "\n".join(part.strip(" \t") for part in f"x{text}x".split(_BREAK))[1:-1]
    text = "\n".join(line.rstrip(" \t") for line in f"{text}x".split("\n"))[:-1]
    return re.sub(r"\n{3,}", "\n\n", text)


def external_id(value: object) -> str:
    """An id as a row holds it; one too long for an index becomes a hash that stays the same."""
    text = clean(str(value))
    return text if len(text) <= ID_LIMIT else digest(text)


def digest(*parts: str) -> str:
    """A stable id of what has none of its own."""
    return "sha256:" + sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:40]


def web_address(value: object) -> str | None:
    """The address if a browser may follow it; `javascript:` and its like are none.

    >>> web_address("javascript:alert(1)") is None
    True
    """
    text = clean(value) if isinstance(value, str) else ""
    return text if re.match(r"https?://[^\s<>\"]+\Z", text) and len(text) <= 2_000 else None


def moment(value: object) -> datetime | None:
    """A date of ISO 8601 or in seconds since 1970 as an aware datetime; None where it is neither.

    >>> moment("2024-02-30T10:00:00Z") is None
    True
    """
    try:
        if isinstance(value, int | float | str) and re.fullmatch(r"\d{1,11}(\.\d+)?", str(value)):
            return datetime.fromtimestamp(float(value), UTC)
        read = datetime.fromisoformat(str(value))
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
