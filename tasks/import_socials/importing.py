"""Imports one account: page after page from its provider into the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from tasks.import_socials.http import Fetcher
from tasks.import_socials.models import Account, ImportOutcome
from tasks.import_socials.providers import importer_for
from tasks.import_socials.store import AccountStore, PostStore


class ImportStore(AccountStore, PostStore, Protocol):
    """What an import needs of the store."""


def import_account(
    account: Account, store: ImportStore, fetcher: Fetcher, so_far: ImportOutcome | None = None
) -> Iterator[ImportOutcome]:
    """Yields the outcome so far after every stored page; raises the account's one clear `PublicError`.

    An import that was interrupted goes on from the account's cursor; `so_far` is what had come of it.

    >>> for outcome in import_account(account, store, fetcher):
    ...     self.progress(outcome.seen, outcome.total, f"Importing {account.name}...")
    >>> self.log(f"{account.key}: {outcome.line}")
    """
    outcome = so_far or ImportOutcome(first=not account.cursor)
    for page in importer_for(account, fetcher).pages(account.cursor):
        added = store.add_page(account, page)
        outcome = replace(
            outcome,
            imported=outcome.imported + added.inserted,
            updated=outcome.updated + added.updated,
            seen=outcome.seen + len(page.posts),
            skipped=outcome.skipped + page.skipped,
            pages=outcome.pages + 1,
            total=page.total if outcome.total is None else outcome.total,
        )
        yield outcome
