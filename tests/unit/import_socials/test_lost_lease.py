"""An import that was taken for dead ends where it is told so, and blames no account for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge import LeaseLost
from bridge.current import detached_run, enter
from bridge.run import Run
from config.settings import settings
from tasks.import_socials import workflow
from tasks.import_socials.models import Provider
from tasks.import_socials.resuming import Journal
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, FakeProvider


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("PROVIDERS_ALLOW_PRIVATE_HOSTS", "true")
    settings.cache_clear()
    made = detached_run()
    enter(made)
    yield made
    enter(None)
    settings.cache_clear()


def test_a_lost_lease_is_no_fault_of_the_account(
    run: Run, importing: Importing, provider: FakeProvider
) -> None:
    def statuses(asked: Any) -> Answer:
        run.lease_lost = True  # as if it was found out just now
        return Answer([{"id": "5", "content": "a post"}], headers={"Link": ""})

    provider.on("/api/v1/accounts/lookup", Answer({"id": "1", "statuses_count": 1}))
    provider.on("/api/v1/accounts/1/statuses", statuses)
    account = importing.account(Provider.MASTODON)
    with pytest.raises(LeaseLost):
        workflow._one_account(importing.store, account, workflow._Share(0, 1), Journal())
    assert importing.store.errors == {}
