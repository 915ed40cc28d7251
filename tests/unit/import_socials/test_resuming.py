"""What an import leaves to its next attempt, and how it goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.given import checkpoint_state
from tasks.import_socials.http import Fetcher
from tasks.import_socials.importing import import_account
from tasks.import_socials.models import Account, ImportOutcome, Provider
from tasks.import_socials.resuming import Journal, Stage
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, FakeProvider

ACCOUNT = Account("a1", "user", Provider.MASTODON, "alice")
COUNTS = st.integers(0, 2**31)
OUTCOMES = st.builds(
    ImportOutcome, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.none() | COUNTS, first=st.booleans()
)


def again(journal: Journal) -> Journal:
    """The journal as the next attempt reads it."""
    return Journal.read(json.loads(checkpoint_state(journal.write())))


@given(OUTCOMES, st.booleans(), COUNTS)
def test_a_journal_comes_back(outcome: ImportOutcome, imported: bool, embedded: int) -> None:
    journal = Journal()
    journal.reached(ACCOUNT, outcome=outcome, imported=imported, embedded=embedded)
    journal.finish(replace(ACCOUNT, id="a0"), {"account": "feed/x", "imported": 5, "line": "5 new posts"})
    journal.finish(replace(ACCOUNT, id="a2"), {"account": "feed/y", "imported": 0, "error": "gone"})
    assert again(journal) == journal


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        "told",
        [],
        {},
        {"done": {}},
        {"done": {"a": 1}, "stages": {}},
        {"done": {}, "stages": {"a": {}}},
    ],
)
def test_a_checkpoint_of_other_code_counts_as_none(state: Any) -> None:
    assert Journal.read(state) == Journal()


def test_nothing_is_known_at_first_but_whether_the_account_was_ever_imported() -> None:
    assert Journal().stage(ACCOUNT).outcome.first
    assert not Journal().stage(replace(ACCOUNT, cursor={"mark": "9"})).outcome.first


def test_an_account_that_is_done_is_in_work_no_more() -> None:
    journal = Journal()
    journal.reached(ACCOUNT, imported=True)
    journal.finish(ACCOUNT, {"account": "mastodon/alice", "imported": 1, "line": "1 new post"})
    assert (journal.stages, list(journal.done)) == ({}, ["a1"])


def test_however_many_accounts_a_user_has_the_checkpoint_is_taken() -> None:
    journal = Journal()
    for number in range(100):
        account = replace(ACCOUNT, id=f"0a1b2c3d-0000-4000-8000-{number:012}")
        journal.finish(account, {"account": "é" * 100, "imported": 2**31, "error": "\x01" * 100})
        journal.reached(ACCOUNT, outcome=ImportOutcome(total=2**31))
        kept = list(again(journal).done)
    assert len(kept) > 30
    assert kept == list(journal.done)[-len(kept) :]


def test_an_interrupted_import_counts_on_where_it_was(
    importing: Importing, provider: FakeProvider, fetcher_with: Callable[..., Fetcher]
) -> None:
    account = importing.account(Provider.MASTODON)
    pages = {None: ["9", "8"], "8": ["7", "6"], "6": ["5"]}

    def statuses(asked: Any) -> Answer:
        if asked.query.get("since_id"):
            return Answer([], headers={"Link": ""})
        found = pages[asked.query.get("max_id")]
        more = f'</x?max_id={found[-1]}>; rel="next"' if len(found) > 1 else ""
        return Answer([{"id": each, "content": f"post {each}"} for each in found], headers={"Link": more})

    provider.on("/api/v1/accounts/lookup", Answer({"id": "1", "statuses_count": 5}))
    provider.on("/api/v1/accounts/1/statuses", statuses)
    journal = Journal()
    for outcome in import_account(account, importing.store, fetcher_with()):
        journal.reached(account, outcome=outcome)
        if outcome.pages == 2:
            break  # as if its worker had died
    stored = importing.store.accounts_by_id[account.id]
    stage = again(journal).stage(stored)
    assert (stage, stored.cursor["next"]) == (Stage(ImportOutcome(4, 0, 4, 0, 2, 5)), "6")
    *_, outcome = import_account(stored, importing.store, fetcher_with(), stage.outcome)
    assert (outcome.imported, outcome.seen, outcome.total, outcome.first) == (5, 5, 5, True)
    assert [each.query.get("max_id") for each in provider.asked if "1/statuses" in each.path][2] == "6"
    assert sorted(importing.posts()) == ["5", "6", "7", "8", "9"]
