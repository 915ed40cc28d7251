"""Plain text from what providers send: HTML to text, and text that Postgres and JSON accept."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from html import unescape

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString

TEXT_LIMIT = 100_000
"""Characters of one post; what lies beyond says nothing new of its topic."""

ID_LIMIT = 500

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_PARAGRAPHS = ["p", "div", "blockquote", "ul", "ol", "pre", "table", "section", "article", "figure", "hr"]
_PARAGRAPHS += [f"h{level}" for level in range(1, 7)]
_LINES = ["li", "tr", "dt", "dd", "figcaption"]
_DROPPED = ["script", "style", "template", "noscript", "iframe", "object", "head"]
_MARKUP = re.compile(r"<[a-zA-Z/!?]")
_PROCESSING = re.compile(r"<\?.*?(?:\?>|>)", re.DOTALL)


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
    markup = _PROCESSING.sub("", markup)
    if not _MARKUP.search(markup):
        return clean(_tidy(unescape(markup)))
    soup = BeautifulSoup(markup, "html.parser")
    for tag in soup.find_all(_DROPPED):
        tag.decompose()
    for span in soup.find_all("span", class_="invisible"):
        span.decompose()
    for span in soup.find_all("span", class_="ellipsis"):
        span.append("…")
    return clean(_tidy("".join(_pieces(soup))))


def _pieces(soup: BeautifulSoup) -> list[str]:
    for tag in soup.find_all(_PARAGRAPHS):
        tag.insert_before("\ue000\ue000")
        tag.insert_after("\ue000\ue000")
    for tag in soup.find_all(_LINES):
        tag.insert_before("\ue000")
    for tag in soup.find_all("br"):
        tag.insert_before("\ue000")
    return [_string(node) for node in soup.descendants if isinstance(node, NavigableString)]


def _string(node: NavigableString) -> str:
    # Comments, declarations and their like.
    if isinstance(node, PreformattedString):
        return ""
    # Line breaks of the source are white space, except in preformatted text.
    in_pre = any(isinstance(parent, Tag) and parent.name == "pre" for parent in node.parents)
    return str(node) if in_pre else re.sub(r"\s+", " ", str(node))


def _tidy(text: str) -> str:
    text = re.sub("[ \t]*\ue000[ \t]*", "\n", text.replace("\xa0", " ").replace("\u200b", ""))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<=\S)[ \t]+(?=\n)", "", text))


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
    except (ValueError, OverflowError, OSError):
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
