from __future__ import annotations

import pytest

from bridge.errors import KeyRefused, SchemaMissing, SupabaseUnavailable
from tasks.import_socials.models import Account, Page, Provider
from tasks.import_socials.supabase_store import SupabaseStore
from tests.unit.import_socials.fake_provider import Answer, FakeProvider

ACCOUNTS, STORE = "/rest/v1/social_accounts", "/rest/v1/rpc/store_posts"
ALICE = Account("1", "user", Provider.FEED, "alice")
FINE = Answer([{"inserted": 1, "updated": 0}])


def connected(provider: FakeProvider, attempts: int = 3) -> SupabaseStore:
    return SupabaseStore.connect(provider.origin, "key", attempts=attempts)


@pytest.mark.parametrize(
    "trouble",
    [
        Answer({"code": "PGRST002", "message": "Could not query the database for the schema cache"}, 503),
        Answer({"code": "57P03", "message": "the database system is starting up"}, 503),
        Answer({"code": "40001", "message": "could not serialize access"}, 500),
        Answer({"message": "Too many requests"}, 429),
        Answer(b"<html>502 Bad Gateway</html>", 502),
        Answer(b"", 504),
    ],
)
def test_writes_and_reads_are_tried_again_while_supabase_has_trouble(
    provider: FakeProvider, trouble: Answer
) -> None:
    provider.on(STORE, trouble, trouble, FINE)
    provider.on(ACCOUNTS, trouble, Answer([]))
    with connected(provider) as store:
        assert store.add_page(ALICE, Page((), {}, is_last=True)).inserted == 1
        assert store.accounts("user") == []
        provider.on(STORE, trouble)
        with pytest.raises(SupabaseUnavailable):
            store.add_page(ALICE, Page((), {}, is_last=True))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer({"code": "PGRST301", "message": "JWT expired"}, 401), KeyRefused),
        (Answer({"code": "42501", "message": "permission denied"}, 403), KeyRefused),
        (Answer({"message": "Invalid API key"}, 401), KeyRefused),
        (Answer({"code": "PGRST202", "message": "Could not find the function"}, 404), SchemaMissing),
        (Answer({"code": "42P01", "message": "relation does not exist"}, 404), SchemaMissing),
    ],
)
def test_what_no_repetition_mends_is_told_at_once(
    provider: FakeProvider, answer: Answer, kind: type[Exception]
) -> None:
    provider.on(STORE, answer)
    with connected(provider) as store, pytest.raises(kind):
        store.add_page(ALICE, Page((), {}, is_last=True))
    assert len(provider.asked) == 1
