"""How a recorded case is answered to an importer: as recorded where it is a listing, else as one.

Where the recorded answers are pages of a listing, an importer gets their very bytes. Where they are of
another shape (a thread, a search, single posts, a capture of a stream), the recorded posts are put, as
they are, into pages of the listing that the importer asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tasks.demo.recorded_cases import Case, Exchange
from tasks.demo.recorded_posts import Item, items
from tasks.import_socials.models import Provider

PAGE_SIZE = 20
_POSITION = {Provider.MASTODON: "max_id", Provider.BLUESKY: "cursor", Provider.REDDIT: "after"}


@dataclass(frozen=True)
class Served:
    """One answer; `next` is the position that asks for the one after it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    next: str | None = None


@dataclass(frozen=True)
class Content:
    """What a case holds and how it is answered; without pages it holds no posts and no failure."""

    items: Mapping[str, Item]
    pages: Sequence[Served] = ()
    failures: Sequence[Served] = ()
    as_recorded: bool = True


def content(case: Case) -> Content:
    """What to answer for a case of any provider but feeds."""
    found = items(case)
    recorded = _recorded_pages(case) if case.provider in _POSITION else []
    if recorded and items(replace(case, exchanges=tuple(recorded))).keys() >= found.keys():
        return Content(found, [_served(case.provider, exchange) for exchange in recorded])
    if found:
        return Content(found, _listing(case.provider, found), as_recorded=False)
    failed = [exchange for exchange in case.exchanges if exchange.failed]
    return Content({}, failures=[Served(one.status, one.headers, one.body) for one in failed])


def end_of_listing(provider: Provider) -> Served:
    """What follows the last page."""
    bodies: Mapping[Provider, Any] = {
        Provider.MASTODON: [],
        Provider.BLUESKY: {"feed": []},
        Provider.REDDIT: _reddit([], None),
    }
    return _json(bodies[provider])


def newer_statuses(found: Mapping[str, Item], since_id: str) -> Served:
    """What Mastodon answers to an import that was here before."""
    newer = [status for number, status in found.items() if int(number) > int(since_id)]
    return _json(sorted(newer, key=lambda status: -int(status["id"])))


def hits(found: Mapping[str, Item], filters: str) -> Served:
    """What the search of Hacker News answers; `filters` are its numericFilters."""
    matching = sorted(found.values(), key=lambda hit: (-hit["created_at_i"], hit["objectID"]))
    for bound in filter(None, filters.split(",")):
        name, operator, value = bound.partition("<=") if "<=" in bound else bound.partition(">=")
        upper = operator == "<="
        matching = [
            hit for hit in matching if (hit[name] <= int(value) if upper else hit[name] >= int(value))
        ]
    page = {"hits": matching[:PAGE_SIZE], "nbHits": len(matching), "page": 0, "hitsPerPage": PAGE_SIZE}
    return _json(page)


def _recorded_pages(case: Case) -> list[Exchange]:
    """The exchanges that follow one another from the first page, by their cursors."""
    name = _POSITION[case.provider]
    left = [exchange for exchange in case.exchanges if _is_listing(case.provider, exchange)]
    pages: list[Exchange] = []
    position: str | None = None
    while following := _asked_with(left, name, position):
        pages.append(following)
        left.remove(following)
        position = _next(case.provider, following)
        if position is None:
            break
    return pages


def _asked_with(exchanges: Sequence[Exchange], name: str, position: str | None) -> Exchange | None:
    for exchange in exchanges:
        query = parse_qs(urlsplit(exchange.url).query)
        if query.get(name, [None])[0] == position and "min_id" not in query:
            return exchange
    return None


def _is_listing(provider: Provider, exchange: Exchange) -> bool:
    body = exchange.parsed
    if exchange.failed:
        return False
    if provider is Provider.MASTODON:
        return isinstance(body, list) and all("content" in element for element in body)
    if provider is Provider.BLUESKY:
        return isinstance(body, dict) and "feed" in body
    return isinstance(body, dict) and body.get("kind") == "Listing"


def _next(provider: Provider, exchange: Exchange) -> str | None:
    if provider is Provider.BLUESKY:
        cursor = exchange.parsed.get("cursor")
        return cursor if isinstance(cursor, str) else None
    if provider is Provider.REDDIT:
        after = exchange.parsed["data"].get("after")
        return after if isinstance(after, str) else None
    link = httpx.Response(200, headers={"link": exchange.headers.get("link", "")}).links.get("next", {})
    return parse_qs(urlsplit(link.get("url", "")).query).get("max_id", [None])[0]


def _served(provider: Provider, exchange: Exchange) -> Served:
    return Served(exchange.status, exchange.headers, exchange.body, _next(provider, exchange))


def _listing(provider: Provider, found: Mapping[str, Item]) -> list[Served]:
    if provider is Provider.HACKERNEWS:
        return [hits(found, "")]
    age, page = _LISTINGS[provider]
    ordered = sorted(found, key=lambda key: age(found[key]), reverse=True)
    starts = range(0, len(ordered), PAGE_SIZE)
    return [
        page([found[key] for key in ordered[start : start + PAGE_SIZE]], start + PAGE_SIZE < len(ordered))
        for start in starts
    ]


def _mastodon_page(statuses: Sequence[Item], more: bool) -> Served:
    last = statuses[-1]["id"]
    served = _json(list(statuses))
    if not more:
        return replace(served, headers={**served.headers, "link": '<https://example.invalid/>; rel="prev"'})
    link = f'<https://example.invalid/statuses?max_id={last}>; rel="next"'
    return replace(served, headers={**served.headers, "link": link}, next=last)


def _bluesky_page(posts: Sequence[Item], more: bool) -> Served:
    cursor = f"after:{posts[-1]['post']['uri']}" if more else None
    return replace(_json({"feed": list(posts)} | ({"cursor": cursor} if cursor else {})), next=cursor)


def _reddit_page(children: Sequence[Item], more: bool) -> Served:
    after = children[-1]["data"]["name"] if more else None
    return replace(_json(_reddit(children, after)), next=after)


def _reddit(children: Sequence[Item], after: str | None) -> Item:
    return {"kind": "Listing", "data": {"children": list(children), "after": after, "before": None}}


def _json(body: Any) -> Served:
    return Served(200, {"content-type": "application/json; charset=utf-8"}, json.dumps(body).encode())


_LISTINGS: Mapping[Provider, tuple[Callable[[Item], Any], Callable[[Sequence[Item], bool], Served]]] = {
    Provider.MASTODON: (lambda item: int(item["id"]), _mastodon_page),
    Provider.BLUESKY: (lambda item: str(item["post"].get("indexedAt")), _bluesky_page),
    Provider.REDDIT: (lambda item: float(item["data"]["created_utc"]), _reddit_page),
}
