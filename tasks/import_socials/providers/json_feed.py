"""JSON Feed (version 1 and 1.1): a web feed whose document is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from tasks.import_socials.errors import MalformedAnswer
from tasks.import_socials.http import Answer
from tasks.import_socials.models import Post
from tasks.import_socials.plain import clean, digest, external_id, html_to_text, moment, web_address
from tasks.import_socials.reading import objects, text


def json_feed_document(answer: Answer, body: bytes) -> tuple[list[Post], str | None]:
    """The posts of a JSON Feed and the address of its older items."""
    try:
        feed = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(answer.account, "the feed is broken JSON") from error
    if not isinstance(feed, Mapping) or "jsonfeed.org/version/" not in text(feed, "version"):
        raise MalformedAnswer(answer.account, "the address answered JSON that is no feed")
    items = objects(answer.account, feed.get("items"), "items")
    return [_post(item, feed, answer.url) for item in items], text(feed, "next_url") or None


def _post(item: Mapping[str, Any], feed: Mapping[str, Any], base: str) -> Post:
    title = clean(text(item, "title"))
    plain = clean(text(item, "content_text") or text(item, "summary"))
    body = html_to_text(text(item, "content_html")) or plain
    published = text(item, "date_published") or text(item, "date_modified")
    link = text(item, "url") or text(item, "external_url")
    own_id = item.get("id") or link
    return Post(
        external_id=external_id(own_id) if own_id else digest(title, body, published),
        author=_author(item) or _author(feed) or clean(text(feed, "title")),
        text=clean("\n\n".join(filter(None, (title, body)))),
        url=web_address(urljoin(base, link)) if link else None,
        published_at=moment(published),
        language=text(item, "language") or text(feed, "language") or None,
    )


def _author(source: Mapping[str, Any]) -> str:
    authors = source.get("authors")
    first = authors[0] if isinstance(authors, list) and authors else source.get("author")
    return clean(text(first, "name"))
