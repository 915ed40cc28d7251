"""Bluesky: the posts of an account, over the public AppView (AT protocol), without a token.

Reposts are left out (they are somebody else's words); replies of the account are posts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.import_socials.errors import (
    AccessForbidden,
    AccountError,
    RequestRefused,
    TokenRefused,
    UnknownAccount,
)
from tasks.import_socials.http import Answer, Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Post
from tasks.import_socials.paging import Cursor, Entry, Listing, newest_first
from tasks.import_socials.plain import clean, external_id, moment
from tasks.import_socials.reading import mapping, objects, origin, text

SERVER = "https://public.api.bsky.app"
PAGE_SIZE = 100
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSALS: Mapping[str, type[AccountError]] = {
    "ExpiredToken": TokenRefused,
    "InvalidToken": TokenRefused,
    "AccountTakedown": AccessForbidden,
    "AccountDeactivated": AccessForbidden,
    "BlockedActor": AccessForbidden,
    "BlockedByActor": AccessForbidden,
}


class BlueskyImporter:
    """Imports the posts of `account.handle`, a handle such as `alice.bsky.social` or a DID."""

    def __init__(self, account: Account, fetcher: Fetcher) -> None:
        self._account, self._fetcher = account, fetcher
        self._url = origin(account.server, SERVER) + "/xrpc/app.bsky.feed.getAuthorFeed"

    def pages(self, since: CursorState) -> Iterator[Page]:
        """The pages of what is new."""
        return newest_first(self._feed, since)

    def _feed(self, position: str | None, _: Cursor) -> Listing:
        params = {"actor": self._account.handle.strip().lstrip("@"), "limit": str(PAGE_SIZE)}
        params |= {"filter": "posts_with_replies"} | ({"cursor": position} if position else {})
        headers = {"Authorization": f"Bearer {self._account.token}"} if self._account.token else None
        # The AT protocol answers 400 where others answer 401, 403 or 404; the body tells which.
        answer = self._fetcher.get(self._account, self._url, params, headers, accept=(400,))
        if answer.status == 400:
            raise self._refusal(answer)
        body = mapping(answer, "feed")
        items = objects(self._account, body.get("feed"), "posts")
        entries = [entry for item in items if (entry := _entry(item)) is not None]
        return Listing(entries, text(body, "cursor") or None)

    def _refusal(self, answer: Answer) -> AccountError:
        body = mapping(answer, "error")
        kind = _REFUSALS.get(text(body, "error"))
        if kind is not None:
            return kind(self._account, kind.text.replace("(401)", "(400)").replace("(403)", "(400)"))
        message = text(body, "message").lower()
        if "not found" in message or "valid did or a handle" in message:
            return UnknownAccount(self._account, UnknownAccount.text.replace("404", "400"))
        return RequestRefused(self._account, "the provider refused the request (400)")


def _entry(item: Mapping[str, Any]) -> Entry | None:
    uri = external_id(text(item, "post", "uri"))
    if not uri:
        return None
    reposted = text(item, "reason", "$type").endswith("#reasonRepost")
    key = _sorted_at(item, reposted)
    # A repost has the uri of what it repeats, which may be a post of the account itself.
    if reposted:
        return Entry(key, f"repost {key} {uri}", None)
    return Entry(key, uri, _post(uri, item["post"]))


def _sorted_at(item: Mapping[str, Any], reposted: bool) -> str:
    """When the item entered the feed; never the author's own date alone, which may lie in the future."""
    indexed = moment(text(item, "reason" if reposted else "post", "indexedAt"))
    created = None if reposted else moment(text(item, "post", "record", "createdAt"))
    times = [at for at in (indexed, created) if at is not None]
    return _fixed(min(times)) if indexed else _fixed(_LONG_AGO)


def _fixed(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(timespec="microseconds")


def _post(uri: str, post: Mapping[str, Any]) -> Post:
    languages = post.get("record", {}).get("langs") if isinstance(post.get("record"), Mapping) else None
    author = text(post, "author", "handle")
    return Post(
        external_id=uri,
        author=clean(author),
        text=clean(text(post, "record", "text")),
        url=f"https://bsky.app/profile/{_profile(uri, author)}/post/{uri.rsplit('/', 1)[-1]}",
        published_at=moment(text(post, "record", "createdAt")) or moment(text(post, "indexedAt")),
        language=next((tag for tag in languages if isinstance(tag, str)), None)
        if isinstance(languages, list)
        else None,
    )


def _profile(uri: str, handle: str) -> str:
    parts = uri.split("/")
    return parts[2] if len(parts) > 2 and parts[2].startswith("did:") else handle
