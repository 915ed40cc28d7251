from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest

from bridge.errors import PublicError
from tasks.import_socials.errors import (
    AccessForbidden,
    AccountError,
    MalformedAnswer,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    TokenRefused,
    UnknownAccount,
)
from tasks.import_socials.http import Fetcher
from tasks.import_socials.models import Account, Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, FakeProvider, fake_provider

FetcherWith = Callable[..., Fetcher]
ALICE = Account("1", "user", Provider.REDDIT, "alice", token="hunter2hunter2")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, TokenRefused, "token_refused"),
        (403, AccessForbidden, "forbidden"),
        (404, UnknownAccount, "unknown_account"),
        (410, UnknownAccount, "unknown_account"),
        (418, RequestRefused, "request_refused"),
        (422, RequestRefused, "request_refused"),
        (429, RateLimited, "rate_limited"),
        (500, ProviderUnavailable, "provider_unavailable"),
        (503, ProviderUnavailable, "provider_unavailable"),
    ],
)
def test_a_refusal_becomes_one_public_line_without_the_token(
    provider: FakeProvider, fetcher_with: FetcherWith, status: int, kind: type[AccountError], code: str
) -> None:
    provider.on("/", Answer({"error": "hunter2hunter2"}, status))
    with pytest.raises(kind) as failed:
        fetcher_with().get(ALICE, provider.origin, headers={"Authorization": f"Bearer {ALICE.token}"})
    line = str(failed.value)
    assert line.startswith("reddit/alice: ")
    assert "\n" not in line
    assert "hunter2" not in line
    assert isinstance(failed.value, PublicError)
    assert failed.value.code == code
    again = pickle.loads(pickle.dumps(failed.value))
    assert (type(again), str(again), again.code) == (kind, line, code)


def test_an_account_never_shows_its_token() -> None:
    assert "hunter2" not in repr(ALICE)


def test_server_errors_are_tried_again_a_bounded_number_of_times(
    provider: FakeProvider, fetcher_with: FetcherWith, importing: Importing
) -> None:
    provider.on("/", Answer({}, 503), Answer({}, 502), Answer({"fine": True}))
    assert fetcher_with().get(ALICE, provider.origin).json() == {"fine": True}
    assert len(importing.waits) == 2
    provider.on("/", Answer({}, 500))
    with pytest.raises(ProviderUnavailable):
        fetcher_with(attempts=3).get(ALICE, provider.origin)
    assert len(provider.asked) == 3 + 3


def test_retry_after_is_honoured(
    provider: FakeProvider, fetcher_with: FetcherWith, importing: Importing
) -> None:
    provider.on("/", Answer({}, 429, {"Retry-After": "7"}), Answer({}))
    fetcher_with().get(ALICE, provider.origin)
    [waited] = importing.waits
    assert 7 <= waited <= 8


def test_a_rate_limit_told_by_headers_is_waited_out_before_the_next_request(
    provider: FakeProvider, fetcher_with: FetcherWith, importing: Importing
) -> None:
    spent = {"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "30"}
    provider.on("/", Answer({}, headers=spent), Answer({}))
    fetcher = fetcher_with()
    fetcher.get(ALICE, provider.origin)
    assert importing.waits == []
    fetcher.get(ALICE, provider.origin)
    assert importing.waits == [30.0]


def test_a_wait_beyond_patience_ends_the_import_at_once(
    provider: FakeProvider, fetcher_with: FetcherWith, importing: Importing
) -> None:
    provider.on("/", Answer({}, 429, {"Retry-After": "3600"}))
    with pytest.raises(RateLimited, match="asks us to wait 60 minutes"):
        fetcher_with().get(ALICE, provider.origin)
    assert importing.waits == []
    assert len(provider.asked) == 1


def test_all_waits_of_an_import_together_are_bounded(
    provider: FakeProvider, fetcher_with: FetcherWith, importing: Importing
) -> None:
    provider.on("/", Answer({}, 200, {"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "40"}))
    fetcher = fetcher_with(patience=timedelta(seconds=100))
    for _ in range(3):
        fetcher.get(ALICE, provider.origin)
    with pytest.raises(RateLimited):
        fetcher.get(ALICE, provider.origin)
    assert importing.waits == [40, 40]


def test_a_server_that_is_not_there_is_told_in_one_line(fetcher_with: FetcherWith) -> None:
    with fake_provider() as gone:
        origin = gone.origin
    with pytest.raises(ProviderUnavailable, match="does not answer; try again later"):
        fetcher_with(attempts=2).get(ALICE, origin)


def test_the_token_stays_with_its_server_when_redirected(
    provider: FakeProvider, fetcher_with: FetcherWith
) -> None:
    with fake_provider() as other:
        other.on("/here", Answer({}))
        provider.on("/", Answer(b"", 302, {"Location": "/inside"}))
        provider.on("/inside", Answer(b"", 302, {"Location": f"{other.origin}/here"}))
        fetcher_with().get(ALICE, provider.origin, headers={"Authorization": "Bearer t"})
        assert [asked.headers.get("authorization") for asked in provider.asked] == ["Bearer t", "Bearer t"]
        assert [asked.headers.get("authorization") for asked in other.asked] == [None]


def test_redirects_are_bounded(provider: FakeProvider, fetcher_with: FetcherWith) -> None:
    provider.on("/", Answer(b"", 302, {"Location": "/"}))
    with pytest.raises(MalformedAnswer, match="more than 5 redirects"):
        fetcher_with().get(ALICE, provider.origin)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_is_read_up_to_a_bound_unpacked(
    provider: FakeProvider, fetcher_with: FetcherWith, encoding: str
) -> None:
    body = b" " * 3_000_000
    packed = gzip.compress(body) if encoding == "gzip" else body
    provider.on("/", Answer(packed, headers={"Content-Encoding": encoding}))
    with pytest.raises(MalformedAnswer, match="larger than 2 MB"):
        fetcher_with(max_bytes=2_000_000).get(ALICE, provider.origin)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!doctype html><p>Are you over 18?", "an HTML page, where JSON was expected"),
        (b'{"kind": "Listing", "data": {', "broken JSON"),
        (b"", "nothing, where JSON was expected"),
        (b"Too many requests", "plain text"),
        (b"[" * 100_000, "broken JSON"),
        (b"\xff\xfe\xfa{}", "plain text"),
    ],
)
def test_what_is_no_json_is_told_as_what_it_is(
    provider: FakeProvider, fetcher_with: FetcherWith, body: bytes, told: str
) -> None:
    provider.on("/", Answer(body))
    with pytest.raises(MalformedAnswer, match=told):
        fetcher_with().get(ALICE, provider.origin).json()


def test_broken_compression_is_malformed(provider: FakeProvider, fetcher_with: FetcherWith) -> None:
    provider.on("/", Answer(b"\x1f\x8bnot gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(MalformedAnswer, match="compression is broken"):
        fetcher_with().get(ALICE, provider.origin)


def test_a_hostile_handle_stays_one_short_line() -> None:
    hostile = Account("1", "user", Provider.REDDIT, "a\n\x1b[31mERROR\u202e" + "x" * 500)
    assert hostile.key.isprintable()
    assert len(hostile.key) < 100
