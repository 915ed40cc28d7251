from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.import_socials.plain import TEXT_LIMIT, clean, external_id, html_to_text, moment, web_address


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>One</p><p>Two<br />three<br>four</p>", "One\n\nTwo\nthree\nfour"),
        ("Fish &amp; chips &#x27;n&#39; peas &lt;3", "Fish & chips 'n' peas <3"),
        ("plain < text > with & signs", "plain < text > with & signs"),
        ("<ul><li>one</li><li>two</li></ul>after", "one\ntwo\n\nafter"),
        ("a<script>alert(1)</script><style>p{}</style>b<!-- c -->", "ab"),
        ("<pre>def f():\n    return 1</pre>", "def f():\n    return 1"),
        ("<p>folded\n   by the\n source</p>", "folded by the source"),
        ("<p>unclosed <b>tags <i>everywhere", "unclosed tags everywhere"),
        ("https://example.org/a?b=1&c=2", "https://example.org/a?b=1&c=2"),
        ('<?xml version="1.0"?><p>declared</p>', "declared"),
        ("", ""),
    ],
)
def test_html_becomes_the_text_that_a_reader_sees(markup: str, text: str) -> None:
    assert html_to_text(markup) == text


def test_links_and_mentions_of_mastodon_read_as_mastodon_shows_them() -> None:
    markup = (
        '<p><span class="h-card"><a href="https://m.example/@bob">@<span>bob</span></a></span>'
        ' see <a href="https://example.org/very/long/path"><span class="invisible">https://</span>'
        '<span class="ellipsis">example.org/very/lo</span><span class="invisible">ng/path</span></a>'
        ' <a href="https://m.example/tags/Rust" class="mention hashtag" rel="tag">#<span>Rust</span></a></p>'
    )
    assert html_to_text(markup) == "@bob see example.org/very/lo… #Rust"


@given(st.text())
def test_any_text_becomes_one_that_postgres_and_json_accept(text: str) -> None:
    for result in (clean(text), html_to_text(text), html_to_text(f"<p>{text}</p>")):
        assert "\x00" not in result
        assert json.loads(json.dumps(result).encode("utf-8")) == result
        assert result.encode("utf-8").decode("utf-8") == result


@pytest.mark.parametrize(
    "piece", ["<div>", "<a ", "</b>", "<!--", "<![CDATA[", "<? ", "<b x=<", "<p><!-- x -->", "&#", "\ue000 "]
)
def test_hostile_markup_does_not_hold_a_worker(piece: str) -> None:
    # A parser that searches on to the end for each of them takes many minutes here.
    assert len(html_to_text(piece * 60_000)) <= TEXT_LIMIT


def test_long_ids_become_hashes_that_stay_the_same() -> None:
    long = "https://example.org/" + "x" * 3_000
    assert external_id(long) == external_id(long)
    assert len(external_id(long)) < 100
    assert external_id("short") == "short"


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//example.org", "https://a b", "", None, 3]
)
def test_only_web_addresses_are_kept_as_links(address: object) -> None:
    assert web_address(address) is None


def test_a_web_address_is_kept() -> None:
    assert web_address(" https://example.org/ä?x=1 ") == "https://example.org/ä?x=1"


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2024-05-06T07:08:09.123Z", datetime(2024, 5, 6, 7, 8, 9, 123000, UTC)),
        ("2024-05-06T09:08:09+02:00", datetime(2024, 5, 6, 7, 8, 9, 0, UTC)),
        (1456769953.0, datetime(2016, 2, 29, 18, 19, 13, 0, UTC)),
        ("1456769953", datetime(2016, 2, 29, 18, 19, 13, 0, UTC)),
        ("2024-13-45T00:00:00Z", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        (10**30, None),
        (None, None),
        ({}, None),
    ],
)
def test_dates_are_read_or_left_out(value: object, at: datetime | None) -> None:
    assert moment(value) == at
