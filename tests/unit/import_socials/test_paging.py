from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.import_socials import paging
from tasks.import_socials.errors import RequestRefused, TokenRefused
from tasks.import_socials.models import Account, Post, Provider
from tasks.import_socials.paging import Cursor, Entry, Listing, newest_first

ACCOUNT = Account("1", "user", Provider.REDDIT, "alice")


@dataclass
class Source:
    """A listing of (second, id) pairs, newest first, that fails when its `budget` of answers is used up."""

    items: list[tuple[int, str]] = field(default_factory=list)
    size: int = 3
    budget: int = 1_000_000
    asked: list[str | None] = field(default_factory=list)

    def fetch(self, position: str | None, _: Cursor) -> Listing:
        self.asked.append(position)
        if self.budget <= 0:
            raise TokenRefused(ACCOUNT)
        self.budget -= 1
        ordered = sorted(self.items, reverse=True)
        if position is not None:
            second, number = position.split("/")
            ordered = [item for item in ordered if item < (int(second), number)]
        page = ordered[: self.size]
        entries = [Entry(f"{at:06d}", number, Post(number, "alice", "x")) for at, number in page]
        following = f"{page[-1][0]}/{page[-1][1]}" if len(ordered) > self.size else None
        return Listing(entries, following)


def run(source: Source, cursor: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The ids imported until the end or the first failure, and the cursor stored with the last page."""
    got: list[str] = []
    try:
        for page in newest_first(source.fetch, cursor):
            got += [post.external_id for post in page.posts]
            cursor = dict(page.cursor)
    except TokenRefused:
        pass
    return got, cursor


_steps = st.lists(
    st.tuples(st.lists(st.integers(0, 3), max_size=7), st.integers(0, 5)), min_size=1, max_size=8
)


@settings(max_examples=300, deadline=None)
@given(steps=_steps, size=st.integers(1, 4))
def test_every_post_is_imported_once_whenever_imports_break_off(
    steps: list[tuple[list[int], int]], size: int
) -> None:
    source, cursor, second, got = Source(size=size), dict[str, Any](), 0, list[str]()
    for delays, budget in steps:
        for delay in delays:
            second += delay  # none: several posts within one second
            source.items.append((second, f"p{len(source.items):04d}"))
        source.budget = budget
        new, cursor = run(source, cursor)
        got += new
    source.budget = 1_000_000
    new, cursor = run(source, cursor)
    got += new
    # A walk that was broken off may meet posts of its own top second again; nothing else comes twice.
    assert set(got) == {number for _, number in source.items}
    source.asked.clear()
    assert run(source, cursor) == ([], cursor)


def test_an_interrupted_import_goes_on_below_and_then_takes_what_came_since() -> None:
    source = Source([(at, f"p{at}") for at in range(10)], budget=2)
    first, cursor = run(source, {})
    source.budget = 1_000_000
    source.items.append((10, "p10"))
    source.asked.clear()
    second, cursor = run(source, cursor)
    assert first == ["p9", "p8", "p7", "p6", "p5", "p4"]
    assert second == ["p3", "p2", "p1", "p0", "p10"]
    assert source.asked[0] == "4/p4"
    assert cursor == {"mark": "000010", "known": ["p10"]}


def test_an_endless_account_is_imported_in_bounded_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 2)
    source = Source([(at, f"p{at}") for at in range(20)])
    cursor, got = dict[str, Any](), list[str]()
    for _ in range(5):
        source.asked.clear()
        new, cursor = run(source, cursor)
        got += new
        assert len(source.asked) <= 4
    assert got == [f"p{at}" for at in range(19, -1, -1)]
    assert list(newest_first(source.fetch, {}))[-1].is_last


def test_a_place_that_the_provider_forgot_means_starting_from_the_top() -> None:
    def fetch(position: str | None, cursor: Cursor) -> Listing:
        if position == "forgotten":
            raise RequestRefused(ACCOUNT)
        return Listing(
            [Entry("5", "p5", Post("p5", "alice", "x")), Entry("1", "p1", Post("p1", "a", "x"))], None
        )

    pages = list(newest_first(fetch, {"mark": "3", "known": ["p3"], "newest": "4", "next": "forgotten"}))
    assert [post.external_id for page in pages for post in page.posts] == ["p5"]
    assert pages[-1].cursor == {"mark": "5", "known": ["p5"]}


@pytest.mark.parametrize(
    "cursor", [{"mark": 3}, {"next": ["x"]}, {"known": "abc"}, {"mark": None, "known": None}]
)
def test_a_cursor_that_cannot_be_read_means_a_first_import(cursor: dict[str, Any]) -> None:
    source = Source([(1, "p1")])
    assert run(source, cursor)[0] == ["p1"]


def test_the_last_page_and_only_it_is_marked_as_the_last() -> None:
    def pages(cursor: dict[str, Any]) -> Iterator[bool]:
        source = Source([(at, f"p{at}") for at in range(7)])
        return (page.is_last for page in newest_first(source.fetch, cursor))

    assert list(pages({})) == [False, False, True]
    interrupted = {"mark": "", "known": [], "newest": "000006", "newest_known": ["p6"], "next": "4/p4"}
    assert list(pages(interrupted)) == [False, False, True]
