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
from tasks.import_socials.models import Account, Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider

OVERVIEW = "/user/alice/overview"


def comment(number: int, **values: Any) -> dict[str, Any]:
    return {
        "kind": "t1",
        "data": {
            "name": f"t1_{number}",
            "author": "alice",
            "body": f"Comment {number}",
            "created_utc": 1_700_000_000.0 + number,
            "permalink": f"/r/test/comments/s/_/{number}/",
            **values,
        },
    }


def story(number: int, **values: Any) -> dict[str, Any]:
    own = {"title": f"Story {number}", "selftext": "", "name": f"t3_{number}", "body": None}
    return {**comment(number, **(own | values)), "kind": "t3"}


class Overview:
    """A listing in pages of three, gone through by `after`."""

    def __init__(self, provider: FakeProvider, children: list[dict[str, Any]]) -> None:
        self.children = children
        provider.on(OVERVIEW, self.answer)

    def answer(self, asked: Asked) -> Answer:
        names = [child["data"]["name"] for child in self.children]
        after = asked.query.get("after")
        # As the real one: after a post that was deleted meanwhile there is nothing.
        start = 0 if after is None else names.index(after) + 1 if after in names else len(names)
        page, rest = self.children[start : start + 3], self.children[start + 3 :]
        last = page[-1]["data"]["name"] if page and rest else None
        return Answer({"kind": "Listing", "data": {"children": page, "after": last}})


@pytest.fixture
def alice(importing: Importing) -> Account:
    return importing.account(Provider.REDDIT, token="t0k3n")


def test_all_pages_are_read_by_after(provider: FakeProvider, importing: Importing, alice: Account) -> None:
    Overview(provider, [comment(number) for number in range(20, 10, -1)])
    assert importing.run(alice).imported == 10
    first = provider.asked[0]
    assert first.headers["authorization"] == "Bearer t0k3n"
    assert first.headers["user-agent"].startswith("taskcast/")
    assert (first.query["raw_json"], first.query["sort"]) == ("1", "new")


def test_the_next_import_takes_only_what_is_new(
    provider: FakeProvider, importing: Importing, alice: Account
) -> None:
    overview = Overview(provider, [comment(number) for number in range(40, 10, -1)])
    importing.run(alice)
    provider.asked.clear()
    overview.children = [story(45), *overview.children]
    assert importing.run(alice).imported == 1
    assert len(provider.asked) == 1


def test_texts_are_read_as_reddit_shows_them(
    provider: FakeProvider, importing: Importing, alice: Account
) -> None:
    html = '<div class="md"><p>It&#39;s <a href="/r/x">r/x</a> &amp; more</p>\n\n<p>two</p></div>'
    escaped = html.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    children = [
        comment(4, body="It's [r/x](/r/x) & more\n\ntwo", body_html=html),
        comment(3, body_html="&lt;!-- SC_OFF --&gt;" + escaped),
        comment(2, body="a &amp;lt; b &amp;amp; c &gt; d"),
        story(1, title="Q &amp; A", selftext="plain", selftext_html=None),
    ]
    Overview(provider, children)
    importing.run(alice)
    posts = importing.posts()
    assert posts["t1_4"].text == posts["t1_3"].text == "It's r/x & more\n\ntwo"
    assert posts["t1_2"].text == "a < b & c > d"
    assert posts["t3_1"].text == "Q & A\n\nplain"


def test_deleted_and_removed_items_are_skipped(
    provider: FakeProvider, importing: Importing, alice: Account
) -> None:
    children = [
        comment(9),
        comment(8, author="[deleted]", body="[deleted]"),
        comment(7, body="[removed]"),
        story(6, selftext="[removed]"),
        {"kind": "more", "data": {"name": "t1__", "children": ["x"]}},
        comment(5, body="[removed] is a word, too"),
    ]
    Overview(provider, children)
    assert importing.run(alice).line == "2 new posts, 3 skipped"


def test_links_lead_to_the_post(provider: FakeProvider, importing: Importing, alice: Account) -> None:
    old = comment(1, permalink=None, link_id="t3_abc", subreddit="test")
    hostile = story(2, permalink=None, url="javascript:alert(1)")
    Overview(provider, [hostile, old])
    importing.run(alice)
    posts = importing.posts()
    assert posts["t1_1"].url == "https://www.reddit.com/r/test/comments/abc/_/1/"
    assert posts["t3_2"].url is None


def test_an_import_goes_on_where_it_was_interrupted_and_from_the_top_if_that_post_is_gone(
    provider: FakeProvider, importing: Importing, alice: Account
) -> None:
    overview = Overview(provider, [comment(number) for number in range(20, 10, -1)])
    provider.on(OVERVIEW, overview.answer, overview.answer, Answer({}, 401))
    with pytest.raises(TokenRefused):
        importing.run(alice)
    assert len(importing.posts()) == 6
    provider.on(OVERVIEW, overview.answer)
    overview.children = [child for child in overview.children if child["data"]["name"] != "t1_15"]
    importing.run(alice)
    assert len(importing.posts()) == 10


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer({"message": "Unauthorized", "error": 401}, 401), TokenRefused),
        (Answer({"message": "Forbidden", "error": 403}, 403), AccessForbidden),
        (Answer({"message": "Not Found", "error": 404}, 404), UnknownAccount),
        (Answer({"reason": "USER_DOESNT_EXIST"}, 400), UnknownAccount),
        (Answer({"reason": "BAD_LIMIT"}, 400), RequestRefused),
        (Answer(b"<html>400 Bad request", 400), RequestRefused),
        (Answer(b"<html>over 18?"), MalformedAnswer),
        (Answer({"kind": "Listing", "data": None}), MalformedAnswer),
        (Answer([]), MalformedAnswer),
    ],
)
def test_every_failure_is_told_by_its_kind(
    provider: FakeProvider, importing: Importing, alice: Account, answer: Answer, kind: type[AccountError]
) -> None:
    provider.on(OVERVIEW, answer)
    with pytest.raises(kind, match="reddit/alice: "):
        importing.run(alice)


def test_an_account_without_a_token_is_asked_to_connect_again(importing: Importing) -> None:
    with pytest.raises(TokenRefused, match="no token; connect it again"):
        importing.run(importing.account(Provider.REDDIT))


def test_a_handle_is_no_path(provider: FakeProvider, importing: Importing) -> None:
    with pytest.raises(UnknownAccount):
        importing.run(importing.account(Provider.REDDIT, "../api/v1/me?x=", token="t"))
    assert provider.asked[0].path.endswith("/overview")
