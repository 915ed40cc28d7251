"""Serves recorded exchanges of providers on loopback, each case as an account that an importer can import.

>>> with recordings(Path("recordings")) as served:
...     for account in served.accounts:
...         print(account.provider, account.handle, account.server, len(account.expected_posts))
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from tasks.demo.recorded_cases import Case, read_cases
from tasks.demo.recorded_feeds import feed_content
from tasks.demo.recorded_pages import Content, Served, content, end_of_listing, hits, newer_statuses
from tasks.demo.serving import served
from tasks.import_socials.models import Provider

_POSITIONS = {Provider.MASTODON: "max_id", Provider.BLUESKY: "cursor", Provider.REDDIT: "after"}


@dataclass(frozen=True)
class RecordedAccount:
    """A case as an account to import.

    `posts` says how many posts the import must store, `expected_posts` the ids of those that have one
    of their own; `as_recorded` whether the answers are the recorded bytes.
    """

    provider: Provider
    handle: str
    server: str
    case: str
    token: str | None
    expected_posts: frozenset[str]
    posts: int
    expects_failure: bool
    as_recorded: bool
    answers: Content = field(repr=False)


@dataclass(frozen=True)
class LeftOut:
    """A case that no account can stand for, and why."""

    provider: Provider
    case: str
    reason: str


@dataclass(frozen=True)
class Recordings:
    """What is served, and what is not."""

    accounts: Sequence[RecordedAccount]
    left_out: Sequence[LeftOut]


@contextmanager
def recordings(directory: Path) -> Iterator[Recordings]:
    """Serves the recordings while the block runs; ValueError where the directory holds none."""
    planned = plan(directory)
    application = web.Application()
    server = _Server({urlsplit(account.server).path: account for account in planned.accounts})
    application.router.add_get("/{tail:.*}", server.answer)
    with served(application) as origin:
        yield replace(planned, accounts=[_moved(account, origin) for account in planned.accounts])


def plan(directory: Path, origin: str = "http://127.0.0.1") -> Recordings:
    """The accounts of a directory of recordings, as a server at `origin` answers for them."""
    accounts: list[RecordedAccount] = []
    left_out: list[LeftOut] = []
    for case in read_cases(directory):
        if case.provider is Provider.FEED:
            accounts += _feeds(case, origin)
            continue
        answers = content(case)
        if answers.pages or answers.failures:
            accounts.append(_account(case, answers, origin))
        else:
            left_out.append(LeftOut(case.provider, case.name, "holds neither a post nor an error"))
    return Recordings(accounts, left_out)


def _moved(account: RecordedAccount, origin: str) -> RecordedAccount:
    return replace(account, server=origin + urlsplit(account.server).path)


def _account(case: Case, answers: Content, origin: str) -> RecordedAccount:
    return RecordedAccount(
        provider=case.provider,
        handle=case.name,
        server=f"{origin}/{case.provider}/{case.name}",
        case=case.name,
        token="recorded" if case.provider is Provider.REDDIT else None,
        expected_posts=frozenset(answers.items),
        posts=len(answers.items),
        expects_failure=bool(answers.failures),
        as_recorded=answers.as_recorded,
        answers=answers,
    )


def _feeds(case: Case, origin: str) -> Iterator[RecordedAccount]:
    """One account for each file of a case: every feed has its own address."""
    for number, exchange in enumerate(case.exchanges):
        found = feed_content(exchange.body)
        file = urlsplit(exchange.url).path.strip("/").rsplit("/", 1)[-1] or "feed"
        handle = case.name if len(case.exchanges) == 1 else f"{case.name}/{file}"
        answer = Served(exchange.status, exchange.headers, exchange.body)
        yield RecordedAccount(
            provider=Provider.FEED,
            handle=handle,
            server=f"{origin}/feed/{case.name}/{number}/{file}",
            case=case.name,
            token=None,
            expected_posts=frozenset(filter(None, found.ids)),
            posts=found.posts,
            expects_failure=not found.is_feed,
            as_recorded=True,
            answers=Content({}, pages=[answer]),
        )


class _Server:
    """Answers importers' requests; below an account's path everything is that account's."""

    def __init__(self, accounts: Mapping[str, RecordedAccount]) -> None:
        self._accounts = accounts
        self._asked: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """The answer to one request."""
        base = "/".join(
            request.path.split("/")[:5] if request.path.startswith("/feed/") else request.path.split("/")[:3]
        )
        account = self._accounts.get(base)
        if account is None:
            return web.json_response({"error": "no such account"}, status=404)
        return _response(request, base, self._choose(account, base, request))

    def _choose(self, account: RecordedAccount, base: str, request: web.Request) -> Served:
        answers = account.answers
        if answers.failures:
            asked = self._asked.get(base, 0)
            self._asked[base] = asked + 1
            return answers.failures[min(asked, len(answers.failures) - 1)]
        if account.provider is Provider.FEED:
            return answers.pages[0]
        if account.provider is Provider.HACKERNEWS:
            return hits(answers.items, request.query.get("numericFilters", ""))
        if request.path.endswith("/accounts/lookup"):
            return _lookup(account)
        if account.provider is Provider.MASTODON and "since_id" in request.query:
            return newer_statuses(answers.items, request.query["since_id"])
        return _page(account, request.query.get(_POSITIONS[account.provider]))


def _page(account: RecordedAccount, position: str | None) -> Served:
    if position is None:
        return account.answers.pages[0]
    pages = account.answers.pages
    following = (after for page, after in itertools.pairwise(pages) if page.next == position)
    return next(following, end_of_listing(account.provider))


def _lookup(account: RecordedAccount) -> Served:
    profile = {"id": "1", "username": account.handle, "acct": account.handle, "statuses_count": account.posts}
    return Served(200, {"content-type": "application/json"}, json.dumps(profile).encode())


def _response(request: web.Request, base: str, served: Served) -> web.Response:
    headers = dict(served.headers)
    if "location" in headers:
        # A redirect leads to this server, never out into the world.
        headers["location"] = str(request.url.origin()) + base + urlsplit(headers["location"]).path
    return web.Response(status=served.status, headers=headers, body=served.body)
