"""What the processes log by themselves."""

from __future__ import annotations

import logging

import pytest

from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.models import Account, Provider
from tests.unit.import_socials.fake_provider import Answer, fake_provider


def test_addresses_that_are_asked_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Private feeds carry their password in their address; a worker logs at INFO."""
    import tasks.celery  # noqa: F401  sets the levels

    with (
        fake_provider() as provider,
        caplog.at_level(logging.INFO),
        Fetcher(FetchPolicy(allow_private=True)) as http,
    ):
        provider.on("/feed", Answer({}))
        http.get(Account("1", "user", Provider.FEED, "x"), f"{provider.origin}/feed?token=S3CRET")
    assert "S3CRET" not in caplog.text
