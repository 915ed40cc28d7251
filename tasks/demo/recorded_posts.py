"""Finds the posts in recorded answers, whatever their shape, without the importers that it is to check.

What is no post of a listing is left out, as the importers promise: boosts and reposts, what a post
quotes or replies to, direct messages, poll options, deleted and removed items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tasks.demo.recorded_cases import Case
from tasks.import_socials.models import Provider

Item = dict[str, Any]
"""A post as the provider's listing of an account would hold it."""


def items(case: Case) -> dict[str, Item]:
    """The posts of a case by their ids, as items of a listing; for feeds see `recorded_feeds`."""
    find = _FINDERS[case.provider]
    found: dict[str, Item] = {}
    for exchange in case.exchanges:
        found |= dict(find(exchange.parsed))
    return found


def _mastodon(body: Any) -> Iterator[tuple[str, Item]]:
    if isinstance(body, str):
        body = list(_captured(body))
    if isinstance(body, list):
        for element in body:
            yield from _mastodon(element)
    elif isinstance(body, dict) and isinstance(body.get("content"), str) and "account" in body:
        if body.get("id") and body.get("reblog") is None and body.get("visibility") != "direct":
            yield body["id"], body
    elif isinstance(body, dict):
        for key in ("statuses", "ancestors", "descendants"):
            yield from _mastodon(body.get(key) or [])
        for activity in body.get("orderedItems") or []:
            if activity.get("type") == "Create":
                yield _of_activity(activity["object"])


def _captured(text: str) -> Iterator[Any]:
    """The JSON values of a capture, torn by line breaks or glued together as they may be."""
    decoder = json.JSONDecoder(strict=False)
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            end = position + 1
        else:
            yield value
        position = text.find("{", end) if end > position + 1 else text.find('{"id"', end)


def _of_activity(note: Mapping[str, Any]) -> tuple[str, Item]:
    number = note["id"].rsplit("/", 1)[-1]
    status = {
        "id": number,
        "created_at": note.get("published"),
        "content": note.get("content") or "",
        "spoiler_text": note.get("summary") or "",
        "url": note.get("url"),
        "visibility": "public",
        "account": {"acct": str(note.get("attributedTo", "")).rsplit("/", 1)[-1]},
        "reblog": None,
        "media_attachments": [{"description": part.get("name")} for part in note.get("attachment") or []],
    }
    return number, status


def _bluesky(body: Any) -> Iterator[tuple[str, Item]]:
    if not isinstance(body, dict):
        return
    for item in body.get("feed") or []:
        if not str((item.get("reason") or {}).get("$type")).endswith("reasonRepost"):
            yield item["post"]["uri"], item
    for post in body.get("posts") or []:
        yield post["uri"], {"post": post}
    for record in [*(body.get("records") or []), body]:
        if isinstance(record.get("value"), dict) and "/app.bsky.feed.post/" in record.get("uri", ""):
            yield record["uri"], {"post": _of_record(record)}
    yield from _bluesky_thread(body.get("thread"))


def _bluesky_thread(node: Any) -> Iterator[tuple[str, Item]]:
    if isinstance(node, dict) and isinstance(node.get("post"), dict):
        yield node["post"]["uri"], {"post": node["post"]}
        for other in [node.get("parent"), *(node.get("replies") or [])]:
            yield from _bluesky_thread(other)


def _of_record(record: Mapping[str, Any]) -> Item:
    author = record["uri"].split("/")[2]
    value = record["value"]
    return {
        "uri": record["uri"],
        "cid": record.get("cid"),
        "author": {"did": author, "handle": author},
        "record": value,
        "indexedAt": value.get("createdAt"),
    }


def _reddit(body: Any) -> Iterator[tuple[str, Item]]:
    if isinstance(body, list):
        for element in body:
            yield from _reddit(element)
    elif isinstance(body, dict) and body.get("kind") == "Listing":
        yield from _reddit(body["data"]["children"])
    elif isinstance(body, dict) and body.get("kind") in ("t1", "t3"):
        data = body["data"]
        gone = re.compile(r"\[ ?(deleted|removed)\b.*\]\s*", re.IGNORECASE)
        written = data.get("selftext") or data.get("body") or data.get("title") or ""
        if data.get("author") not in (None, "[deleted]") and not gone.fullmatch(written):
            yield data["name"], body
        yield from _reddit(data.get("replies"))


def _hackernews(body: Any) -> Iterator[tuple[str, Item]]:
    if not isinstance(body, dict):
        return
    for hit in body.get("hits") or []:
        yield from _of_item(hit, str(hit["objectID"]))
    if isinstance(body.get("id"), int) and body.get("type"):
        yield from _of_item(body, str(body["id"]))
        for child in body.get("children") or []:
            yield from _hackernews(child)


def _of_item(item: Mapping[str, Any], number: str) -> Iterator[tuple[str, Item]]:
    """An item of any of the three APIs of Hacker News as a hit of the search."""
    kind = next(iter(item.get("_tags") or [item.get("type")]))
    text = item.get("comment_text") or item.get("story_text") or item.get("text")
    author = item.get("author") or item.get("by")
    if kind == "pollopt" or not author or not (text or item.get("title")):
        return
    hit = {
        "objectID": number,
        "author": author,
        "title": item.get("title"),
        "url": item.get("url"),
        "comment_text": text if kind == "comment" else None,
        "story_text": None if kind == "comment" else text,
        "created_at_i": item.get("created_at_i", item.get("time")),
        "_tags": [kind, f"author_{author}"],
    }
    yield number, hit


_FINDERS: Mapping[Provider, Callable[[Any], Iterator[tuple[str, Item]]]] = {
    Provider.MASTODON: _mastodon,
    Provider.BLUESKY: _bluesky,
    Provider.REDDIT: _reddit,
    Provider.HACKERNEWS: _hackernews,
}
