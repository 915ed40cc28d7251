"""A server of this machine that speaks the providers' HTTP APIs over the demo's posts.

The importers do not know the difference. One account answers 429 at first, one has a revoked token, one
is empty, so that the demo shows these lines too.

>>> with providers_server() as url:
...     accounts = demo_accounts(url)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from aiohttp import web

from tasks.demo import provider_answers as answers
from tasks.demo.demo_posts import DemoAccount, DemoPost, read_accounts
from tasks.demo.serving import served

_LIMITED_AT_FIRST = ("mastodon", "jonas")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class AccountSeed:
    """What a row of `social_accounts` needs; `server` is an origin, or the address of a feed."""

    user: str
    person: str
    provider: str
    handle: str
    server: str
    token: str | None = field(repr=False)


def demo_accounts(url: str, accounts: Sequence[DemoAccount] | None = None) -> list[AccountSeed]:
    """The accounts of the demo's users, as served at `url`."""
    return [
        AccountSeed(
            account.user,
            account.person,
            account.provider,
            account.handle,
            f"{url}/feeds/{account.handle}.xml" if account.provider == "feed" else url,
            account.token,
        )
        for account in accounts or read_accounts()
    ]


@contextmanager
def providers_server(
    accounts: Sequence[DemoAccount] | None = None,
    *,
    latency: timedelta = timedelta(milliseconds=120),
    page_size: int = 10,
    port: int = 0,
) -> Iterator[str]:
    """Serves while the block runs; gives its origin, such as `http://127.0.0.1:40123`.

    `latency` is the mean time of an answer. `page_size` is the most posts of one answer; the real
    providers allow 40 to 200, fewer let a short demo show its pages.
    """
    providers = _Providers(accounts or read_accounts(), latency, page_size)
    with served(providers.application(), port) as url:
        yield url


class _Providers:
    """Answers for all providers at once; their paths do not meet."""

    def __init__(self, accounts: Sequence[DemoAccount], latency: timedelta, page_size: int) -> None:
        self._accounts = {(account.provider, account.handle): account for account in accounts}
        self._latency, self._page_size = latency.total_seconds(), page_size
        self._requests = 0
        self._limited: set[tuple[str, str]] = set()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._at_human_pace])
        app.router.add_get("/api/v1/accounts/lookup", self._mastodon_lookup)
        app.router.add_get("/api/v1/accounts/{number}/statuses", self._mastodon_statuses)
        app.router.add_get("/xrpc/app.bsky.feed.getAuthorFeed", self._bluesky_feed)
        app.router.add_get("/api/v1/search_by_date", self._hackernews_search)
        app.router.add_get("/api/v1/users/{name}", self._hackernews_user)
        app.router.add_get("/user/{name}/overview", self._reddit_overview)
        app.router.add_get("/feeds/{name}.xml", self._feed)
        return app

    @web.middleware
    async def _at_human_pace(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._requests += 1
        # Between half and one and a half times the mean, the same in every run.
        await asyncio.sleep(self._latency * (0.5 + (self._requests * 37 % 100) / 100))
        return await handler(request)

    async def _mastodon_lookup(self, request: web.Request) -> web.Response:
        key = ("mastodon", request.query.get("acct", ""))
        if key == _LIMITED_AT_FIRST and key not in self._limited:
            self._limited.add(key)
            body = {"error": "Too many requests"}
            return web.json_response(body, status=429, headers={"Retry-After": "1"})
        account = self._accounts.get(key)
        if account is None:
            return web.json_response({"error": "Record not found"}, status=404)
        return web.json_response(
            answers.mastodon_account(account, _origin(request)), headers=_mastodon_limits()
        )

    async def _mastodon_statuses(self, request: web.Request) -> web.Response:
        number, query = request.match_info["number"], request.query
        known = (a for a in self._accounts.values() if a.provider == "mastodon")
        account = next((a for a in known if answers.account_number(a) == number), None)
        if account is None:
            return web.json_response({"error": "Record not found"}, status=404)
        page = [post for post in account.posts if _between(post.number, query)]
        page = [post for post in page if not (post.boost_of and query.get("exclude_reblogs") == "true")]
        size = self._size(query.get("limit"), 20)
        # min_id asks for the page next to it, since_id for the newest page above it.
        page = page[-size:] if "min_id" in query else page[:size]
        headers = _mastodon_limits()
        if page:
            here = f"{_origin(request)}{request.path}?limit={size}"
            older, newer = f"{here}&max_id={page[-1].number}", f"{here}&min_id={page[0].number}"
            headers["Link"] = f'<{older}>; rel="next", <{newer}>; rel="prev"'
        statuses = [answers.mastodon_status(account, post, _origin(request)) for post in page]
        return web.json_response(statuses, headers=headers)

    async def _bluesky_feed(self, request: web.Request) -> web.Response:
        account = self._accounts.get(("bluesky", request.query.get("actor", "")))
        if account is None:
            body = {"error": "InvalidRequest", "message": "Profile not found"}
            return web.json_response(body, status=400)
        cursor = request.query.get("cursor")
        rest = [post for post in account.posts if cursor is None or answers.iso(post.at) < cursor]
        page = rest[: self._size(request.query.get("limit"), 50)]
        found: dict[str, Any] = {"feed": [answers.bluesky_item(account, post) for post in page]}
        if len(rest) > len(page):
            found["cursor"] = answers.iso(page[-1].at)
        limits = {"RateLimit-Limit": "3000", "RateLimit-Remaining": "2990", "RateLimit-Policy": "3000;w=300"}
        return web.json_response(found, headers=limits)

    async def _hackernews_search(self, request: web.Request) -> web.Response:
        name = request.query.get("tags", "").partition("author_")[2]
        account = self._accounts.get(("hackernews", name))
        filters = [part for part in request.query.get("numericFilters", "").split(",") if part]
        posts = account.posts if account else ()
        hits = [post for post in posts if all(_admits(part, post) for part in filters)]
        size, page = self._size(request.query.get("hitsPerPage"), 20), int(request.query.get("page", "0"))
        shown = hits[page * size : (page + 1) * size]
        body = {
            "hits": [answers.hackernews_hit(account, post) for post in shown] if account else [],
            "nbHits": len(hits),
            "nbPages": -(-len(hits) // size),
            "page": page,
            "hitsPerPage": size,
        }
        return web.json_response(body)

    async def _hackernews_user(self, request: web.Request) -> web.Response:
        account = self._accounts.get(("hackernews", request.match_info["name"]))
        if account is None:
            return web.json_response({"status": 404, "error": "Not Found"}, status=404)
        return web.json_response({"username": account.handle, "about": "", "karma": len(account.posts)})

    async def _reddit_overview(self, request: web.Request) -> web.Response:
        account = self._accounts.get(("reddit", request.match_info["name"]))
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if account is None or account.revoked or sent != account.token:
            known_token = any(sent == a.token and not a.revoked for a in self._accounts.values())
            status, word = (404, "Not Found") if account is None and known_token else (401, "Unauthorized")
            return web.json_response({"message": word, "error": status}, status=status)
        names = [answers.reddit_child(account, post)["data"]["name"] for post in account.posts]
        size = self._size(request.query.get("limit"), 25)
        after, before = request.query.get("after"), request.query.get("before")
        start = names.index(after) + 1 if after in names else 0
        end = names.index(before) if before in names else len(names)
        shown = account.posts[start:end] if before is None else account.posts[max(0, end - size) : end]
        shown = shown[:size]
        children = [answers.reddit_child(account, post) for post in shown]
        more = bool(shown) and shown[-1] is not account.posts[-1]
        data = {
            "children": children,
            "dist": len(children),
            "after": children[-1]["data"]["name"] if more else None,
            "before": children[0]["data"]["name"] if start and children else None,
        }
        limits = {"x-ratelimit-used": "12", "x-ratelimit-remaining": "588.0", "x-ratelimit-reset": "420"}
        return web.json_response({"kind": "Listing", "data": data}, headers=limits)

    async def _feed(self, request: web.Request) -> web.Response:
        account = self._accounts.get(("feed", request.match_info["name"]))
        if account is None:
            raise web.HTTPNotFound
        write = answers.atom if account.form == "atom" else answers.rss
        body = write(account, account.posts, _origin(request))
        etag = f'"{sha256(body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        kind = f"application/{account.form}+xml"
        return web.Response(body=body, content_type=kind, charset="utf-8", headers={"ETag": etag})

    def _size(self, asked: str | None, usual: int) -> int:
        wanted = int(asked) if asked and asked.isdecimal() else usual
        return max(1, min(wanted, self._page_size))


def _origin(request: web.Request) -> str:
    return f"http://{request.host}"


def _between(number: int, query: Mapping[str, str]) -> bool:
    above = max(int(query.get("since_id", 0)), int(query.get("min_id", 0)))
    return above < number and ("max_id" not in query or number < int(query["max_id"]))


def _admits(condition: str, post: DemoPost) -> bool:
    """Whether a post fulfils one of Algolia's numeric filters, such as `created_at_i<=1700000000`."""
    at = int(post.at.timestamp())
    for sign, holds in (("<=", at.__le__), (">=", at.__ge__), ("<", at.__lt__), (">", at.__gt__)):
        field, found, bound = condition.partition(sign)
        if found:
            return field == "created_at_i" and bool(holds(int(bound)))
    return True


def _mastodon_limits() -> dict[str, str]:
    reset = answers.iso(datetime.now(UTC) + timedelta(minutes=5))
    return {"X-RateLimit-Limit": "300", "X-RateLimit-Remaining": "280", "X-RateLimit-Reset": reset}
