from __future__ import annotations

from typing import Any

import pytest

from tasks.import_socials.errors import AccessForbidden, MalformedAnswer, ServerNotAllowed, UnknownAccount
from tasks.import_socials.models import Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider

LOOKUP, STATUSES = "/api/v1/accounts/lookup", "/api/v1/accounts/7/statuses"


def status(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "created_at": "2026-01-02T03:04:05.678Z",
        "content": f"<p>Post {number}</p>",
        "spoiler_text": "",
        "visibility": "public",
        "language": "en",
        "url": f"https://social.example/@alice/{number}",
        "account": {"acct": "alice"},
        "reblog": None,
        "media_attachments": [],
        **values,
    }


class Timeline:
    """The statuses of an account as Mastodon pages them, newest first."""

    def __init__(self, provider: FakeProvider, numbers: list[int], size: int = 3, links: bool = True) -> None:
        self.statuses = {number: status(number) for number in numbers}
        self.size, self.links, self.origin = size, links, provider.origin
        provider.on(
            LOOKUP, lambda _: Answer({"id": "7", "acct": "alice", "statuses_count": len(self.statuses)})
        )
        provider.on(STATUSES, self.answer)

    def answer(self, asked: Asked) -> Answer:
        below = int(asked.query.get("max_id", 10**18))
        above = int(asked.query.get("since_id", 0))
        found = [number for number in sorted(self.statuses, reverse=True) if above < number < below]
        page = found[: self.size]
        # As the real one: the link does not repeat since_id, and its last page links backwards only.
        link = (
            f'<{self.origin}{STATUSES}?limit=40&max_id={page[-1]}>; rel="next"'
            if len(found) > self.size
            else ""
        )
        link = ", ".join(
            filter(None, [link, f'<{self.origin}{STATUSES}?min_id=1>; rel="prev"' if page else ""])
        )
        return Answer(
            [self.statuses[number] for number in page], headers={"Link": link} if self.links and link else {}
        )


@pytest.mark.parametrize("links", [True, False])
def test_all_pages_are_read_by_link_header_or_by_the_last_id(
    provider: FakeProvider, importing: Importing, links: bool
) -> None:
    Timeline(provider, list(range(101, 111)), links=links)
    outcome = importing.run(importing.account(Provider.MASTODON))
    assert sorted(importing.posts()) == [str(number) for number in range(101, 111)]
    assert (outcome.imported, outcome.total) == (10, 10)


def test_the_next_import_asks_only_for_what_is_new(provider: FakeProvider, importing: Importing) -> None:
    timeline = Timeline(provider, list(range(101, 111)))
    account = importing.account(Provider.MASTODON)
    importing.run(account)
    provider.asked.clear()
    assert importing.run(account).line == "no new posts"
    timeline.statuses |= {number: status(number) for number in range(111, 118)}
    assert importing.run(account).imported == 7
    assert {asked.query["since_id"] for asked in provider.asked if asked.path == STATUSES} == {"110"}
    assert importing.store.accounts_by_id["alice"].cursor == {"mark": "117", "known": ["117"]}


def test_a_status_becomes_a_plain_post(provider: FakeProvider, importing: Importing) -> None:
    timeline = Timeline(provider, [1])
    timeline.statuses = {
        3: status(3, spoiler_text="Food", content="<p>Fish &amp; chips<br>today</p>"),
        2: status(2, content="", media_attachments=[{"description": "A cat asleep"}, {"description": None}]),
        1: status(
            1, content=None, url="javascript:alert(1)", created_at="garbage", language=None, account=None
        ),
    }
    importing.run(importing.account(Provider.MASTODON))
    posts = importing.posts()
    assert posts["3"].text == "Food\n\nFish & chips\ntoday"
    assert posts["3"].url == "https://social.example/@alice/3"
    assert posts["3"].published_at is not None
    assert posts["2"].text == "A cat asleep"
    assert (posts["1"].text, posts["1"].url, posts["1"].published_at, posts["1"].author) == (
        "",
        None,
        None,
        "",
    )


def test_boosts_and_direct_messages_are_skipped(provider: FakeProvider, importing: Importing) -> None:
    timeline = Timeline(provider, [1])
    timeline.statuses |= {2: status(2, reblog=status(99)), 3: status(3, visibility="direct")}
    outcome = importing.run(importing.account(Provider.MASTODON))
    assert sorted(importing.posts()) == ["1"]
    assert outcome.line == "1 new post, 2 skipped"


def test_an_account_without_posts_is_no_failure(provider: FakeProvider, importing: Importing) -> None:
    Timeline(provider, [])
    assert importing.run(importing.account(Provider.MASTODON)).line == "no posts yet"


def test_the_token_goes_into_the_header_and_the_name_without_its_server(
    provider: FakeProvider, importing: Importing
) -> None:
    Timeline(provider, [1])
    importing.run(importing.account(Provider.MASTODON, "@alice@social.example", token="t0k3n"))
    assert provider.asked[0].query == {"acct": "alice"}
    assert {asked.headers["authorization"] for asked in provider.asked} == {"Bearer t0k3n"}


def test_an_unknown_account_is_told(provider: FakeProvider, importing: Importing) -> None:
    provider.on(LOOKUP, Answer({"error": "Record not found"}, 404))
    with pytest.raises(UnknownAccount, match="mastodon/alice: the provider knows no such account"):
        importing.run(importing.account(Provider.MASTODON))


def test_a_suspended_account_is_told(provider: FakeProvider, importing: Importing) -> None:
    provider.on(LOOKUP, Answer({"id": "7", "suspended": True}))
    with pytest.raises(AccessForbidden, match="suspended"):
        importing.run(importing.account(Provider.MASTODON))


@pytest.mark.parametrize("body", [{"error": "maintenance"}, None, "x", 7, b"<html>"])
def test_a_listing_of_another_shape_is_malformed(
    provider: FakeProvider, importing: Importing, body: Any
) -> None:
    Timeline(provider, [])
    provider.on(STATUSES, Answer(body))
    with pytest.raises(MalformedAnswer):
        importing.run(importing.account(Provider.MASTODON))


@pytest.mark.parametrize("number", ["../../admin", "", None, 7])
def test_the_id_of_an_account_is_not_trusted_as_a_path(
    provider: FakeProvider, importing: Importing, number: Any
) -> None:
    Timeline(provider, [])
    provider.on(LOOKUP, Answer({"id": number}))
    if number == 7:
        assert importing.run(importing.account(Provider.MASTODON)).pages == 1
    else:
        with pytest.raises(MalformedAnswer):
            importing.run(importing.account(Provider.MASTODON))


def test_strange_elements_are_passed_over(provider: FakeProvider, importing: Importing) -> None:
    Timeline(provider, [])
    provider.on(STATUSES, Answer([None, 3, {}, {"id": None}, status(5), {"id": "6", "content": {"a": 1}}]))
    importing.run(importing.account(Provider.MASTODON))
    assert sorted(importing.posts()) == ["5", "6"]


def test_an_account_needs_a_server(importing: Importing) -> None:
    with pytest.raises(ServerNotAllowed, match="names no server"):
        importing.run(importing.account(Provider.MASTODON, server=None))
