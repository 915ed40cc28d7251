"""Reddit: posts and comments of an account, over the OAuth API, which gives the newest 1,000 at most.

Deleted and removed items are left out. The texts are read from the HTML that Reddit makes of the
Markdown, because that is what its readers see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any
from urllib.parse import quote

from tasks.import_socials.errors import AccountError, RequestRefused, TokenRefused, UnknownAccount
from tasks.import_socials.http import Answer, Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Post
from tasks.import_socials.paging import Cursor, Entry, Listing, newest_first
from tasks.import_socials.plain import clean, external_id, html_to_text, moment, web_address
from tasks.import_socials.reading import mapping, objects, origin, text

SERVER = "https://oauth.reddit.com"
SITE = "https://www.reddit.com"
PAGE_SIZE = 100
_GONE = ("[deleted]", "[removed]", "[deleted by user]", "[ Removed by Reddit ]", "[ Removed by reddit ]")


class RedditImporter:
    """Imports what `account.handle` wrote; needs the account's OAuth token."""

    def __init__(self, account: Account, fetcher: Fetcher) -> None:
        self._account, self._fetcher = account, fetcher
        user = account.handle.strip().removeprefix("/").removeprefix("u/")
        self._url = f"{origin(account.server, SERVER)}/user/{quote(user, safe='')}/overview"

    def pages(self, since: CursorState) -> Iterator[Page]:
        """The pages of what is new."""
        if not self._account.token:
            raise TokenRefused(self._account, "the account has no token; connect it again")
        yield from newest_first(self._overview, since)

    def _overview(self, after: str | None, _: Cursor) -> Listing:
        params = {"limit": str(PAGE_SIZE), "sort": "new", "raw_json": "1"}
        params |= {"after": after} if after else {}
        headers = {"Authorization": f"Bearer {self._account.token}"}
        answer = self._fetcher.get(self._account, self._url, params, headers, accept=(400,))
        if answer.status == 400:
            raise self._refusal(answer)
        listing = mapping(answer, "listing").get("data")
        data = listing if isinstance(listing, Mapping) else {}
        children = objects(self._account, data.get("children"), "posts")
        entries = [entry for child in children if (entry := _entry(child)) is not None]
        return Listing(entries, text(data, "after") or None)

    def _refusal(self, answer: Answer) -> AccountError:
        try:
            reason = text(answer.json(), "reason")
        except AccountError:
            reason = ""
        if reason == "USER_DOESNT_EXIST":
            return UnknownAccount(self._account, UnknownAccount.text.replace("404", "400"))
        return RequestRefused(self._account, "the provider refused the request (400)")


def _entry(child: Mapping[str, Any]) -> Entry | None:
    data = child.get("data")
    if child.get("kind") not in ("t1", "t3") or not isinstance(data, Mapping):
        return None
    name = external_id(text(data, "name") or f"{child['kind']}_{text(data, 'id')}")
    at = moment(data.get("created_utc"))
    key = f"{int(at.timestamp()) if at else 0:012d}"
    return Entry(key, name, None if _is_gone(data) else _post(name, data))


def _is_gone(data: Mapping[str, Any]) -> bool:
    written = text(data, "selftext") or text(data, "body") or text(data, "title")
    return text(data, "author") in ("", "[deleted]") or written.strip() in _GONE


def _post(name: str, data: Mapping[str, Any]) -> Post:
    permalink = text(data, "permalink") or _comment_link(name, data)
    return Post(
        external_id=name,
        author=clean(text(data, "author")),
        text="\n\n".join(filter(None, (clean(unescape(text(data, "title"))), _written(data)))),
        url=web_address(SITE + permalink) if permalink else web_address(data.get("url")),
        published_at=moment(data.get("created_utc")),
    )


def _written(data: Mapping[str, Any]) -> str:
    markup = text(data, "selftext_html") or text(data, "body_html")
    if markup:
        # Escaped once more where the server did not honour raw_json=1.
        return html_to_text(unescape(markup) if markup.lstrip().startswith("&lt;") else markup)
    return clean(unescape(unescape(text(data, "selftext") or text(data, "body"))).replace("\u200b", ""))


def _comment_link(name: str, data: Mapping[str, Any]) -> str:
    """Old answers carry no permalink of a comment; it follows from the ids."""
    story = text(data, "link_id").removeprefix("t3_")
    return f"/r/{text(data, 'subreddit')}/comments/{story}/_/{name.removeprefix('t1_')}/" if story else ""
