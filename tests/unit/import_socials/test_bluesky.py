from __future__ import annotations

from typing import Any

import pytest

from tasks.import_socials.errors import (
    AccessForbidden,
    AccountError,
    MalformedAnswer,
    RequestRefused,
    TokenRefused,
    UnknownAccount,
)
from tasks.import_socials.models import Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider

FEED = "/xrpc/app.bsky.feed.getAuthorFeed"


def uri(number: int) -> str:
    return f"at://did:plc:alice/app.bsky.feed.post/3k{number:03d}"


def item(number: int, *, reposted: bool = False, pinned: bool = False, **record: Any) -> dict[str, Any]:
    at = f"2026-01-02T03:{number // 60:02d}:{number % 60:02d}.000Z"
    made: dict[str, Any] = {
        "post": {
            "uri": uri(number),
            "author": {"did": "did:plc:alice", "handle": "alice.bsky.example"},
            "record": {"text": f"Post {number}", "createdAt": at, "langs": ["en", "de"], **record},
            "indexedAt": at,
        }
    }
    if reposted:
        made["reason"] = {"$type": "app.bsky.feed.defs#reasonRepost", "indexedAt": at}
    if pinned:
        made["reason"] = {"$type": "app.bsky.feed.defs#reasonPin"}
    return made


class Feed:
    """An author feed in pages of three, its cursors the positions in it."""

    def __init__(self, provider: FakeProvider, items: list[dict[str, Any]]) -> None:
        self.items = items
        provider.on(FEED, self.answer)

    def answer(self, asked: Asked) -> Answer:
        start = int(asked.query.get("cursor", "0"))
        page = self.items[start : start + 3]
        # As the real one: a cursor comes with every page that holds something, the last one included.
        return Answer({"feed": page} | ({"cursor": str(start + 3)} if page else {}))


def test_all_pages_are_read_by_cursor(provider: FakeProvider, importing: Importing) -> None:
    Feed(provider, [item(number) for number in range(20, 10, -1)])
    outcome = importing.run(importing.account(Provider.BLUESKY))
    assert sorted(importing.posts()) == [uri(number) for number in range(11, 21)]
    assert outcome.imported == 10
    assert provider.asked[0].query["actor"] == "alice"


def test_the_next_import_stops_where_the_last_one_began(provider: FakeProvider, importing: Importing) -> None:
    feed = Feed(provider, [item(number) for number in range(60, 10, -1)])
    account = importing.account(Provider.BLUESKY)
    importing.run(account)
    provider.asked.clear()
    assert importing.run(account).line == "no new posts"
    assert len(provider.asked) == 1
    # The pinned post stands at the top although it is old.
    feed.items = [item(30, pinned=True), *(item(number) for number in range(65, 10, -1))]
    assert importing.run(account).imported == 5


def test_a_post_becomes_a_plain_post(provider: FakeProvider, importing: Importing) -> None:
    Feed(provider, [item(5, text="plain <b>text</b> &amp; more 🦋")])
    importing.run(importing.account(Provider.BLUESKY))
    [post] = importing.posts().values()
    assert post.text == "plain <b>text</b> &amp; more 🦋"
    assert post.url == "https://bsky.app/profile/did:plc:alice/post/3k005"
    assert (post.author, post.language) == ("alice.bsky.example", "en")


def test_reposts_are_skipped_and_do_not_hide_the_post_itself(
    provider: FakeProvider, importing: Importing
) -> None:
    Feed(provider, [item(9, reposted=True), item(9), item(8, reposted=True)])
    outcome = importing.run(importing.account(Provider.BLUESKY))
    assert sorted(importing.posts()) == [uri(9)]
    assert outcome.line == "1 new post, 2 skipped"


def test_a_date_in_the_future_does_not_stop_later_imports(
    provider: FakeProvider, importing: Importing
) -> None:
    feed = Feed(provider, [item(9, createdAt="2999-01-01T00:00:00Z")])
    account = importing.account(Provider.BLUESKY)
    importing.run(account)
    feed.items.insert(0, item(10))
    assert importing.run(account).imported == 1


def test_a_feed_that_never_ends_is_left(provider: FakeProvider, importing: Importing) -> None:
    numbers = iter(range(1_000_000))
    provider.on(FEED, lambda _: Answer({"feed": [item(1)], "cursor": f"c{next(numbers)}"}))
    assert importing.run(importing.account(Provider.BLUESKY)).imported == 1
    assert len(provider.asked) < 20


def test_a_cursor_that_comes_again_ends_the_feed(provider: FakeProvider, importing: Importing) -> None:
    provider.on(FEED, lambda _: Answer({"feed": [item(1)], "cursor": "same"}))
    importing.run(importing.account(Provider.BLUESKY))
    assert len(provider.asked) == 2


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        ("InvalidRequest", "Profile not found", UnknownAccount),
        ("InvalidRequest", "Error: actor must be a valid did or a handle", UnknownAccount),
        ("ExpiredToken", "Token has expired", TokenRefused),
        ("InvalidToken", "Bad token", TokenRefused),
        ("AccountTakedown", "Account has been taken down", AccessForbidden),
        ("AccountDeactivated", "Account is deactivated", AccessForbidden),
        ("InvalidRequest", "limit must be positive", RequestRefused),
        ("", "", RequestRefused),
    ],
)
def test_the_400_of_the_protocol_is_told_apart(
    provider: FakeProvider, importing: Importing, error: str, message: str, kind: type[AccountError]
) -> None:
    provider.on(FEED, Answer({"error": error, "message": message}, 400))
    with pytest.raises(kind, match="bluesky/alice: "):
        importing.run(importing.account(Provider.BLUESKY))


@pytest.mark.parametrize("body", [{}, {"feed": None}, {"feed": {}}, [], None, b"", b"<html>"])
def test_an_answer_of_another_shape_is_malformed(
    provider: FakeProvider, importing: Importing, body: Any
) -> None:
    provider.on(FEED, Answer(body))
    with pytest.raises(MalformedAnswer):
        importing.run(importing.account(Provider.BLUESKY))


def test_strange_elements_are_passed_over(provider: FakeProvider, importing: Importing) -> None:
    strange = [
        None,
        {},
        {"post": None},
        {"post": {"uri": 3}},
        {"post": {"uri": uri(1)}},
        item(2, langs="en", text=None),
    ]
    provider.on(FEED, Answer({"feed": strange}))
    importing.run(importing.account(Provider.BLUESKY))
    assert sorted(importing.posts()) == [uri(1), uri(2)]
