"""Web feeds: RSS, Atom and RDF, read by feedparser, and JSON Feed.

`account.server` (or the handle) is the address of the feed. A feed that says so by ETag or
Last-Modified is not sent again while it is unchanged; a paged one (RFC 5005) is read to its end once.
"""

from __future__ import annotations

import re
import zlib
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.sax import SAXException

from tasks.import_socials.errors import AccountError, MalformedAnswer
from tasks.import_socials.http import Answer, Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Post
from tasks.import_socials.plain import clean, digest, external_id, html_to_text, web_address
from tasks.import_socials.providers.feed_parser import parsed_feed
from tasks.import_socials.providers.json_feed import json_feed_document
from tasks.import_socials.reading import origin

MAX_PAGES = 100
_UNDECLARED_PREFIX = re.compile(rb"(</?)(?:rss|atom):(?=[a-z])")
_ACCEPT = "application/atom+xml, application/rss+xml, application/feed+json, application/xml;q=0.9, */*;q=0.5"


@dataclass(frozen=True)
class Document:
    """What one answer of a feed holds; `next` is the address of its older entries."""

    posts: Sequence[Post]
    next: str | None = None


class FeedImporter:
    """Imports the entries of the feed at `account.server`, or at `account.handle` where none is given."""

    def __init__(self, account: Account, fetcher: Fetcher) -> None:
        self._account, self._fetcher = account, fetcher
        self._url = origin(account.server, "") if account.server else origin(account.handle, "")

    def pages(self, since: CursorState) -> Iterator[Page]:
        """The pages of the feed; one without posts where it is unchanged."""
        answer = self._fetcher.get(self._account, self._url, headers=_conditions(since), accept=(304,))
        if answer.status == 304:
            yield Page((), dict(since), is_last=True)
            return
        cursor, seen, visited = _validators(answer), set[str](), {answer.url}
        while True:
            document = self._read(answer)
            posts = _unseen(document.posts, seen)
            following = self._following(document, answer, posts, visited) if not since else None
            # Until its last page is stored, a paged feed counts as not imported.
            state = {} if following else cursor
            yield Page(posts, state, following is None, skipped=len(document.posts) - len(posts))
            if following is None:
                return
            visited.add(following)
            answer = self._fetcher.get(self._account, following, headers={"Accept": _ACCEPT})

    def _read(self, answer: Answer) -> Document:
        body = _unzipped(answer)
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            posts, following = json_feed_document(answer, body)
            return Document(posts, following)
        return _xml_document(answer, body)

    def _following(
        self, document: Document, answer: Answer, posts: Sequence[Post], visited: set[str]
    ) -> str | None:
        if not document.next or not posts or len(visited) >= MAX_PAGES:
            return None
        url = urljoin(answer.url, document.next)
        # A feed may page on its own server only; elsewhere it could send us anywhere.
        same_origin = urlsplit(url)[:2] == urlsplit(answer.url)[:2]
        return url if same_origin and url not in visited else None


def _unseen(posts: Sequence[Post], seen: set[str]) -> list[Post]:
    """The posts whose ids are not in `seen`, each id once; adds them to it."""
    found = {post.external_id: post for post in reversed(posts) if post.external_id not in seen}
    seen.update(found)
    return list(reversed(found.values()))


def _conditions(since: CursorState) -> dict[str, str]:
    names = {"etag": "If-None-Match", "modified": "If-Modified-Since"}
    conditions = {header: str(since[key]) for key, header in names.items() if since.get(key)}
    return {"Accept": _ACCEPT, **conditions}


def _validators(answer: Answer) -> dict[str, str]:
    found = {"etag": answer.headers.get("etag", ""), "modified": answer.headers.get("last-modified", "")}
    # Never empty, so that a feed without validators counts as imported before.
    return {"imported": "yes"} | {key: value for key, value in found.items() if value and len(value) <= 500}


def _unzipped(answer: Answer) -> bytes:
    """The body; some servers send a gzip file without saying so."""
    if not answer.body.startswith(b"\x1f\x8b"):
        return answer.body
    try:
        return zlib.decompressobj(wbits=31).decompress(answer.body, 10_000_000)
    except zlib.error as error:
        raise MalformedAnswer(answer.account, "the feed's compression is broken") from error


def _xml_document(answer: Answer, body: bytes) -> Document:
    parsed = _parsed(answer, body)
    if _is_broken(parsed) and not parsed.get("entries"):
        # Prefixes that nobody declared hide every element.
        parsed = _parsed(answer, _UNDECLARED_PREFIX.sub(rb"\1", body))
    entries, about = parsed.get("entries") or [], parsed.get("feed") or {}
    whose = clean(str(about.get("author") or about.get("title") or ""))
    posts = [post for entry in entries if (post := _post(entry, answer.url, whose)) is not None]
    if not posts and (not parsed.get("version") or _is_broken(parsed)):
        raise _no_feed(answer, body)
    links = about.get("links") or []
    older = next((link.get("href") for link in links if link.get("rel") == "next"), None)
    return Document(posts, older)


def _parsed(answer: Answer, body: bytes) -> Mapping[str, Any]:
    try:
        return parsed_feed(body.lstrip(), answer.headers.get("content-type", ""))
    except Exception as error:  # the parser promises none, hostile input finds one
        raise MalformedAnswer(answer.account, "the feed cannot be read") from error


def _is_broken(parsed: Mapping[str, Any]) -> bool:
    return isinstance(parsed.get("bozo_exception"), SAXException)


def _no_feed(answer: Answer, body: bytes) -> AccountError:
    start = body[:2_000].lstrip().lower()
    if not start:
        return MalformedAnswer(answer.account, "the address answered nothing, no feed")
    if start.startswith(b"<!doctype html") or b"<html" in start:
        return MalformedAnswer(answer.account, "the address answered an HTML page, no feed")
    return MalformedAnswer(answer.account, "the feed is broken; none of its entries can be read")


def _post(entry: Mapping[str, Any], base: str, feed_author: str) -> Post | None:
    title, body = _detail(entry.get("title_detail")), _body(entry)
    link = entry.get("link")
    url = web_address(urljoin(base, link)) if isinstance(link, str) and link else None
    published = _published(entry)
    own_id = entry.get("id") or link
    if not (own_id or title or body):
        return None
    return Post(
        external_id=external_id(own_id) if own_id else digest(title, body, str(published or "")),
        author=clean(str(entry.get("author") or "")) or feed_author,
        text=clean("\n\n".join(filter(None, (title, body if body != title else "")))),
        url=url,
        published_at=published,
        language=_language(entry),
    )


def _body(entry: Mapping[str, Any]) -> str:
    """The longest of what an entry gives as its text: some put a teaser first, some repeat themselves."""
    details = [*(entry.get("content") or []), entry.get("summary_detail")]
    return max((_detail(detail) for detail in details), key=len)


def _detail(detail: object) -> str:
    if not isinstance(detail, Mapping):
        return ""
    value = str(detail.get("value") or "")
    return clean(value) if detail.get("type") == "text/plain" and "</" not in value else html_to_text(value)


def _published(entry: Mapping[str, Any]) -> datetime | None:
    for field in ("published_parsed", "updated_parsed", "created_parsed"):
        # Asked for where it is missing, `updated_parsed` is another field, with a warning.
        parsed = entry.get(field) if field in entry else None
        if parsed:
            try:
                return datetime.fromtimestamp(timegm(parsed), UTC)
            except (ValueError, OverflowError, OSError, TypeError):
                continue
    return None


def _language(entry: Mapping[str, Any]) -> str | None:
    detail = entry.get("title_detail")
    language = detail.get("language") if isinstance(detail, Mapping) else None
    return language if isinstance(language, str) and len(language) <= 20 else None
