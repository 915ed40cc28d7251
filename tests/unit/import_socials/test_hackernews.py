from __future__ import annotations

from typing import Any

import pytest

from tasks.import_socials.errors import MalformedAnswer, UnknownAccount
from tasks.import_socials.models import Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider

SEARCH, USER = "/api/v1/search_by_date", "/api/v1/users/alice"


def hit(number: int, at: int | None = None, **values: Any) -> dict[str, Any]:
    return {
        "objectID": str(number),
        "created_at_i": 1_700_000_000 + (number if at is None else at),
        "author": "alice",
        "title": None,
        "comment_text": f"Comment {number}",
        "story_text": None,
        "_tags": ["comment", "author_alice"],
        **values,
    }


class Search:
    """Algolia's search: newest first, so many hits a page, and never more than so many of one query."""

    def __init__(
        self, provider: FakeProvider, hits: list[dict[str, Any]], size: int = 4, window: int = 8
    ) -> None:
        self.hits, self.size, self.window = hits, size, window
        provider.on(SEARCH, self.answer)
        provider.on(USER, Answer({"username": "alice"}))

    def answer(self, asked: Asked) -> Answer:
        found = sorted(self.hits, key=lambda one: -one["created_at_i"])
        for bound in filter(None, asked.query.get("numericFilters", "").split(",")):
            name, operator, value = bound.partition("<=") if "<=" in bound else bound.partition(">=")
            found = [
                one
                for one in found
                if (one[name] <= int(value) if operator == "<=" else one[name] >= int(value))
            ]
        start = int(asked.query.get("page", 0)) * self.size
        page = found[start : start + self.size] if start < self.window else []
        return Answer({"hits": page, "nbHits": len(found), "hitsPerPage": self.size, "page": 0})


def test_everything_is_read_beyond_the_window_of_one_query(
    provider: FakeProvider, importing: Importing
) -> None:
    Search(provider, [hit(number) for number in range(50)])
    outcome = importing.run(importing.account(Provider.HACKERNEWS))
    assert len(importing.posts()) == 50
    assert (outcome.imported, outcome.total) == (50, 50)
    assert provider.asked[0].query["tags"] == "author_alice"


def test_items_of_one_second_are_all_read(provider: FakeProvider, importing: Importing) -> None:
    Search(provider, [hit(number, at=number // 3) for number in range(20)])
    importing.run(importing.account(Provider.HACKERNEWS))
    assert len(importing.posts()) == 20


def test_the_next_import_takes_what_is_new_even_of_the_same_second(
    provider: FakeProvider, importing: Importing
) -> None:
    search = Search(provider, [hit(number) for number in range(10)])
    account = importing.account(Provider.HACKERNEWS)
    importing.run(account)
    assert importing.run(account).line == "no new posts"
    search.hits += [hit(100, at=9), hit(101, at=12)]
    provider.asked.clear()
    assert importing.run(account).imported == 2
    assert len(provider.asked) == 1
    assert importing.run(account).imported == 0


def test_stories_and_comments_become_plain_posts(provider: FakeProvider, importing: Importing) -> None:
    story = {
        "title": "Show HN: A thing",
        "comment_text": None,
        "story_text": "It&#x27;s here<p>and <i>works</i>",
    }
    Search(
        provider,
        [hit(1, **story), hit(2, comment_text="Is x &lt; y?<p>Yes"), hit(3, title="A link", comment_text="")],
    )
    importing.run(importing.account(Provider.HACKERNEWS))
    posts = importing.posts()
    assert posts["1"].text == "Show HN: A thing\n\nIt's here\n\nand works"
    assert posts["2"].text == "Is x < y?\n\nYes"
    assert posts["3"].text == "A link"
    assert posts["1"].url == "https://news.ycombinator.com/item?id=1"


def test_deleted_items_and_poll_options_are_skipped(provider: FakeProvider, importing: Importing) -> None:
    gone = [hit(1, author=None), hit(2, comment_text=None), hit(3, _tags=["pollopt"])]
    Search(provider, [*gone, hit(4)])
    assert importing.run(importing.account(Provider.HACKERNEWS)).line == "1 new post, 3 skipped"


def test_an_account_without_posts_is_told_from_an_unknown_one(
    provider: FakeProvider, importing: Importing
) -> None:
    Search(provider, [])
    assert importing.run(importing.account(Provider.HACKERNEWS)).line == "no posts yet"
    with pytest.raises(UnknownAccount):
        importing.run(importing.account(Provider.HACKERNEWS, "bob"))


@pytest.mark.parametrize("handle", ["a,b", "alice OR bob", "alice),story", "", "../x"])
def test_a_name_is_no_way_to_change_the_query(importing: Importing, handle: str) -> None:
    with pytest.raises(UnknownAccount):
        importing.run(importing.account(Provider.HACKERNEWS, handle))


@pytest.mark.parametrize("body", [None, [], {"hits": None}, {}])
def test_an_answer_of_another_shape_is_malformed(
    provider: FakeProvider, importing: Importing, body: Any
) -> None:
    provider.on(SEARCH, Answer(body))
    with pytest.raises(MalformedAnswer):
        importing.run(importing.account(Provider.HACKERNEWS))


def test_strange_elements_are_passed_over(provider: FakeProvider, importing: Importing) -> None:
    provider.on(
        SEARCH, Answer({"hits": [None, {}, hit(1, created_at_i="soon"), hit(2, _tags=None)], "nbHits": 4})
    )
    importing.run(importing.account(Provider.HACKERNEWS))
    assert sorted(importing.posts()) == ["2"]
