"""Hostile or secret text does not leave the worker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.text import lines_of, public, public_json, shorten

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
        "redis://:S3CRET@queue:6379/0",
        "https://S3CRET@git.example/repository",
        "https://me:S3@S3CRET@host/",
        "refresh_token=S3CRET",
        "AWS_SECRET_ACCESS_KEY=S3CRET",
        "client-secret: S3CRET",
        "x-api-key: S3CRET",
        "Authorization: Basic UzNDUkVU",
    ],
)
def test_secrets_are_removed(text: str) -> None:
    shown = public(text)
    assert "[removed]" in shown
    for secret in ("S3CRET", "UzNDUkVU", "abcdefghijklmnop", TOKEN):
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


@pytest.mark.parametrize("piece", ["eyJ", "eyJ.", "://a:", "bearer ", "token ", "token\t=", "sk-", "@a:"])
def test_hostile_text_is_cleaned_in_linear_time(piece: str) -> None:
    """One that is not takes minutes, so the suite's own time limit ends this test."""
    for _ in range(20):
        public(piece * (64_000 // len(piece)))


def test_values_are_cleaned_without_breaking_what_holds_them() -> None:
    hostile = {
        "last": "token:",
        "password": "S3CRET",
        "api_key": None,
        "secret": 5,
        "list": ["\x1b[2J", "token=S3CRET", "\\u0000", "\ud800"],
        "token=S3CRET": {"deep": [1.5, True, None]},
    }
    assert public_json(hostile) == {
        "last": "token:",
        "password": "[removed]",
        "api_key": None,
        "secret": 5,
        "list": ["[2J", "[removed]", "\\u0000", ""],
        "[removed]": {"deep": [1.5, True, None]},
    }
