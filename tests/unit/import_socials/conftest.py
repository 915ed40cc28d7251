from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.importing import import_account
from tasks.import_socials.memory_store import MemoryStore
from tasks.import_socials.models import Account, ImportOutcome, Post, Provider
from tests.unit.import_socials.fake_provider import FakeProvider, fake_provider


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as provider:
        yield provider


@dataclass
class Importing:
    """Imports accounts of the fake provider into a store in memory, without ever waiting."""

    origin: str
    policy: FetchPolicy = field(default_factory=lambda: FetchPolicy(allow_private=True))
    waits: list[float] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)

    def account(self, kind: Provider, handle: str = "alice", **values: Any) -> Account:
        account = Account(handle, "user", kind, handle, **{"server": self.origin, **values})
        self.store.accounts_by_id.setdefault(account.id, account)
        return account

    def run(self, account: Account) -> ImportOutcome:
        """Imports what is new since the last run of the account."""
        outcome = ImportOutcome()
        stored = replace(account, cursor=self.store.accounts_by_id[account.id].cursor)
        with Fetcher(self.policy, sleep=self.waits.append) as fetcher:
            for so_far in import_account(stored, self.store, fetcher):
                outcome = so_far
        return outcome

    def posts(self) -> dict[str, Post]:
        return {post.external_id: post for _, post in self.store.posts.values()}


@pytest.fixture
def importing(provider: FakeProvider) -> Importing:
    return Importing(provider.origin)


@pytest.fixture
def fetcher_with(importing: Importing) -> Iterator[Callable[..., Fetcher]]:
    """Makes fetchers that do not wait; keyword arguments are those of the policy."""
    made: list[Fetcher] = []

    def make(**policy: Any) -> Fetcher:
        fetcher = Fetcher(FetchPolicy(**{"allow_private": True, **policy}), sleep=importing.waits.append)
        made.append(fetcher)
        return fetcher

    yield make
    for fetcher in made:
        fetcher.close()
