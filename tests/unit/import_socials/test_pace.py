from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.import_socials.pace import retry_after, until_reset

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("4", 4.0),
        ("0", 0.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2026-01-02T03:05:05.5Z"}, 60.5),  # Mastodon
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(int(NOW.timestamp()) + 30)}, 30.0),  # Bluesky
        ({"x-ratelimit-remaining": "0.0", "x-ratelimit-reset": "42"}, 42.0),  # Reddit
        ({"x-ratelimit-remaining": "12.0", "x-ratelimit-reset": "42"}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2020-01-01T00:00:00Z"}, 0.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "whenever"}, 0.0),
        ({"x-ratelimit-remaining": "0"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_reset_is_read_in_the_words_of_every_provider(headers: dict[str, str], seconds: float) -> None:
    assert until_reset(headers, NOW) == pytest.approx(seconds)
