"""Mastodon: the statuses of an account, over the REST API of its own server.

Boosts are left out (they are somebody else's words), and so are direct messages, which a user's own
token would show. An edit of a status that is stored already is not seen by later imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tasks.import_socials.errors import AccessForbidden, MalformedAnswer, ServerNotAllowed
from tasks.import_socials.http import Answer, Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Post
from tasks.import_socials.paging import Cursor, Entry, Listing, newest_first
from tasks.import_socials.plain import clean, external_id, html_to_text, moment, web_address
from tasks.import_socials.reading import count, mapping, objects, origin, text

PAGE_SIZE = 40


class MastodonImporter:
    """Imports the statuses of `account.handle` from `account.server` (`alice@example.social` names both)."""

    def __init__(self, account: Account, fetcher: Fetcher) -> None:
        self._account, self._fetcher = account, fetcher
        self._user, _, host = account.handle.strip().lstrip("@").partition("@")
        if not (account.server or host):
            raise ServerNotAllowed(account, "the account names no server; write alice@example.social")
        self._origin = origin(account.server or host, "")

    def pages(self, since: CursorState) -> Iterator[Page]:
        """The pages of what is new."""
        profile = mapping(self._get("/api/v1/accounts/lookup", {"acct": self._user}), "account")
        if profile.get("suspended") is True:
            raise AccessForbidden(self._account, "the account is suspended")
        number, total = external_id(profile.get("id") or ""), count(profile, "statuses_count")
        if not number.isalnum():
            raise MalformedAnswer(self._account, "the provider's answer holds no account")

        def fetch(position: str | None, cursor: Cursor) -> Listing:
            return self._statuses(number, position, cursor.mark, total)

        yield from newest_first(fetch, since)

    def _statuses(self, number: str, max_id: str | None, since_id: str, total: int | None) -> Listing:
        params = {"limit": str(PAGE_SIZE), "exclude_reblogs": "true"}
        params |= {"max_id": max_id} if max_id else {}
        params |= {"since_id": since_id} if since_id else {}
        answer = self._get(f"/api/v1/accounts/{number}/statuses", params)
        statuses = objects(self._account, answer.json(), "statuses")
        entries = [entry for status in statuses if (entry := _entry(status)) is not None]
        return Listing(entries, _following(answer, entries), None if since_id else total)

    def _get(self, path: str, params: Mapping[str, str]) -> Answer:
        headers = {"Authorization": f"Bearer {self._account.token}"} if self._account.token else None
        return self._fetcher.get(self._account, self._origin + path, params, headers)


def _entry(status: Mapping[str, Any]) -> Entry | None:
    number = external_id(status.get("id") or "")
    if not number:
        return None
    left_out = status.get("reblog") is not None or status.get("visibility") == "direct"
    return Entry(number, number, None if left_out else _post(number, status))


def _post(number: str, status: Mapping[str, Any]) -> Post:
    parts = [clean(text(status, "spoiler_text")), html_to_text(text(status, "content"))]
    if not any(parts):
        media = status.get("media_attachments")
        parts = [clean(text(item, "description")) for item in media] if isinstance(media, list) else []
    return Post(
        external_id=number,
        author=clean(text(status, "account", "acct")),
        text="\n\n".join(filter(None, parts)),
        url=web_address(status.get("url")) or web_address(status.get("uri")),
        published_at=moment(status.get("created_at")),
        language=text(status, "language") or None,
    )


def _following(answer: Answer, entries: list[Entry]) -> str | None:
    """The max_id of the next page: of the Link header, or the last id where a proxy dropped the header."""
    if "link" not in answer.headers:
        return entries[-1].id if entries else None
    # Only the id is taken: the link's host is the server's word, and it drops our since_id.
    links = httpx.Response(answer.status, headers={"link": answer.headers["link"]}).links
    query = urlsplit(links.get("next", {}).get("url", "")).query
    return next(iter(parse_qs(query).get("max_id", [])), None)
