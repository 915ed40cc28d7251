"""Hacker News: stories and comments of an account, over Algolia's search, which gives 1,000 hits at most.

So pages are not asked for by number but by time: everything older than the oldest hit so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.import_socials.errors import UnknownAccount
from tasks.import_socials.http import Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Post
from tasks.import_socials.paging import Cursor, Entry, Listing, newest_first
from tasks.import_socials.plain import clean, external_id, html_to_text, moment
from tasks.import_socials.reading import count, mapping, objects, origin, text

SERVER = "https://hn.algolia.com"
PAGE_SIZE = 200


class HackerNewsImporter:
    """Imports the stories and comments of `account.handle`."""

    def __init__(self, account: Account, fetcher: Fetcher) -> None:
        self._account, self._fetcher = account, fetcher
        self._origin = origin(account.server, SERVER)
        self._user = account.handle.strip()
        if not self._user.replace("-", "").replace("_", "").isalnum():
            # The name becomes part of a filter expression.
            raise UnknownAccount(account, "no name of Hacker News: letters, digits, - and _ only")

    def pages(self, since: CursorState) -> Iterator[Page]:
        """The pages of what is new."""
        for number, page in enumerate(newest_first(self._hits, since)):
            if number == 0 and page.is_last and not page.posts and not since:
                # The search knows only items; whether an account without any exists, it tells elsewhere.
                self._fetcher.get(self._account, f"{self._origin}/api/v1/users/{self._user}")
            yield page

    def _hits(self, before: str | None, cursor: Cursor) -> Listing:
        bounds = [f"created_at_i<={int(before)}"] if before and before.isdecimal() else []
        bounds += [f"created_at_i>={int(cursor.mark)}"] if cursor.mark.isdecimal() else []
        params = {"tags": f"author_{self._user}", "hitsPerPage": str(PAGE_SIZE)}
        params |= {"numericFilters": ",".join(bounds)} if bounds else {}
        body = mapping(
            self._fetcher.get(self._account, f"{self._origin}/api/v1/search_by_date", params), "search result"
        )
        hits = objects(self._account, body.get("hits"), "hits")
        entries = [entry for hit in hits if (entry := _entry(hit)) is not None]
        total = count(body, "nbHits")
        following = None if total is not None and total <= len(hits) else _before(before, entries)
        return Listing(entries, following, None if before else total)


def _before(last: str | None, entries: list[Entry]) -> str | None:
    """The second to go on from, with it: another item may share it. None where nothing is older."""
    oldest = min((int(entry.key) for entry in entries), default=None)
    if oldest is None:
        return None
    # A page that brought nothing older would be asked for again and again.
    return f"{oldest - 1 if last is not None and last.isdecimal() and oldest >= int(last) else oldest}"


def _entry(hit: Mapping[str, Any]) -> Entry | None:
    number, at = external_id(hit.get("objectID") or ""), hit.get("created_at_i")
    if not number or not isinstance(at, int) or at < 0:
        return None
    tags = hit.get("_tags")
    is_option = isinstance(tags, list) and "pollopt" in tags
    body = html_to_text(text(hit, "comment_text") or text(hit, "story_text"))
    parts = [clean(text(hit, "title")), body]
    # A deleted item stays in the index without author or text.
    gone = not text(hit, "author") or not any(parts)
    return Entry(f"{at:012d}", number, None if gone or is_option else _post(number, hit, parts))


def _post(number: str, hit: Mapping[str, Any], parts: list[str]) -> Post:
    return Post(
        external_id=number,
        author=clean(text(hit, "author")),
        text="\n\n".join(filter(None, parts)),
        url=f"https://news.ycombinator.com/item?id={number}",
        published_at=moment(hit.get("created_at_i")),
        language="en",
    )
