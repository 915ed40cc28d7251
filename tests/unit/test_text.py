"""Hostile or secret text does not leave the worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.text import lines_of, public, shorten

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJlLWJ5dGVz"


@pytest.mark.parametrize(
    "text",
    [
        f"request failed: {TOKEN}",
        "Authorization: Bearer abcdefghijklmnop",
        "https://api.example.org/v1?access_token=S3CRET&page=2",
        "postgres://admin:S3CRET@db/x",
        "api_key='S3CRET'",
        "{'password': 'S3CRET'}",
        "sb_" + "secret_abcdefghijklmnopqrstuv",
        "sk-proj-abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_secrets_are_removed(text: str) -> None:
    shown = public(text)
    assert "[removed]" in shown
    for secret in ("S3CRET", "abcdefghijklmnop", TOKEN):
        assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Importing mastodon (@alice)... 3 of 20",
        "Größe: 12 €, naïve café",
        "日本語の投稿",
        "a = b; tokens: 12",
        "שלום",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert public(text) == text


@given(st.text())
def test_what_is_left_can_be_stored_and_printed(text: str) -> None:
    shown = public(text)
    shown.encode()
    assert "\x00" not in shown
    assert "\x1b" not in shown
    assert public(shown) == shown


def test_line_breaks_and_tabs_stay() -> None:
    assert public("a\n\tb\r\x1b[31mc") == "a\n\tb[31mc"


@given(st.text(max_size=60), st.integers(1, 20))
def test_pieces_add_up_to_the_text(text: str, limit: int) -> None:
    pieces = list(lines_of(text, limit))
    assert "".join(pieces) == text
    assert pieces
    assert all(len(piece) <= limit for piece in pieces)
    assert len(shorten(text, limit)) <= limit
