"""Writes plain posts in the markup that each provider answers with."""

from __future__ import annotations

import re
from html import escape

_LINK = re.compile(r"https?://[^\s<>\"']+")
_TAG = re.compile(r"(?<![\w&/])#(\w*[^\W\d]\w*)")
_EMPHASIS = re.compile(r"(?<!\w)\*([^*\n]+)\*(?!\w)")


def mastodon_html(text: str, server: str) -> str:
    """HTML as Mastodon writes it: links cut in spans, hashtags as links."""
    marked = _LINK.sub(_mastodon_link, escape(text, quote=False))
    marked = _TAG.sub(
        rf'<a href="{server}/tags/\1" class="mention hashtag" rel="tag">#<span>\1</span></a>', marked
    )
    return _paragraphs(marked, "<br />")


def hackernews_html(text: str) -> str:
    """HTML as Hacker News writes it: <p> between paragraphs only, quotes and slashes as entities."""
    marked = _EMPHASIS.sub(r"<i>\1</i>", escape(text).replace("&#x27;", "'"))
    return "<p>".join(marked.split("\n\n")).replace("'", "&#x27;")


def reddit_html(text: str) -> str:
    """HTML as Reddit makes it of Markdown, inside its usual comment marks."""
    marked = _EMPHASIS.sub(r"<em>\1</em>", escape(text).replace("&#x27;", "&#39;"))
    return f'<!-- SC_OFF --><div class="md">{_paragraphs(marked, "<br/>")}\n</div><!-- SC_ON -->'


def feed_html(text: str) -> str:
    """HTML as a blog engine writes it."""
    return _paragraphs(_EMPHASIS.sub(r"<em>\1</em>", escape(text, quote=False)), "<br>")


def _mastodon_link(match: re.Match[str]) -> str:
    scheme, _, rest = match.group().partition("://")
    return (
        f'<a href="{match.group()}" target="_blank" rel="nofollow noopener">'
        f'<span class="invisible">{scheme}://</span><span class="ellipsis">{rest[:30]}</span>'
        f'<span class="invisible">{rest[30:]}</span></a>'
    )


def _paragraphs(marked: str, line_break: str) -> str:
    return "".join(f"<p>{part.replace(chr(10), line_break)}</p>" for part in marked.split("\n\n"))
