from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tasks.import_socials import guard
from tasks.import_socials.errors import ServerNotAllowed
from tasks.import_socials.guard import is_public
from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.models import Account, Provider
from tests.unit.import_socials.fake_provider import Answer, FakeProvider


@pytest.fixture
def strict() -> Iterator[Fetcher]:
    with Fetcher(FetchPolicy(), sleep=lambda _: None) as fetcher:
        yield fetcher


def account(server: str) -> Account:
    return Account("1", "user", Provider.FEED, "blog", server)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
    ],
)
def test_an_address_that_is_not_public_is_seen_as_such(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_a_public_address_is_seen_as_such(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "server",
    [
        "http://example.org/feed",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://2130706433/",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://example.org/feed",
        "gopher://example.org",
        "https://",
    ],
)
def test_only_public_https_servers_are_asked(strict: Fetcher, server: str) -> None:
    with pytest.raises(ServerNotAllowed) as refused:
        strict.get(account(server), server)
    assert str(refused.value).startswith("feed/blog: ")


def test_a_name_that_turns_private_after_the_check_is_refused_before_anything_is_sent(
    strict: Fetcher, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.on("/", Answer({}))
    # As if the name had resolved to a public address when it was checked, and to ours when it was dialled.
    monkeypatch.setattr(guard, "_refuse_private_host", lambda _request: None)
    server = provider.origin.replace("http://", "https://")
    with pytest.raises(ServerNotAllowed):
        strict.get(account(server), server)
    assert provider.asked == []


def test_a_redirect_into_a_private_network_is_refused(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.on("/feed", Answer(b"", 302, {"Location": "http://127.0.0.1:1/secret"}))
    checked: list[Any] = []

    class FirstHopAllowed(guard.GuardedTransport):
        def handle_request(self, request: Any) -> Any:
            checked.append(request.url.path)
            self._allow_private = len(checked) == 1
            return super().handle_request(request)

    monkeypatch.setattr("tasks.import_socials.http.GuardedTransport", FirstHopAllowed)
    with Fetcher(sleep=lambda _: None) as fetcher, pytest.raises(ServerNotAllowed):
        fetcher.get(account(provider.origin), provider.origin + "/feed")
    assert checked == ["/feed", "/secret"]
