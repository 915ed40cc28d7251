"""A provider that means harm costs an import bounded time and memory, and ends in one line."""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from tasks.import_socials.errors import MalformedAnswer, ProviderUnavailable
from tasks.import_socials.guard import is_public
from tasks.import_socials.http import Fetcher
from tasks.import_socials.models import Account, Provider
from tasks.import_socials.plain import html_to_text
from tasks.import_socials.words import content_runs
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, FakeProvider

FetcherWith = Callable[..., Fetcher]
ALICE = Account("1", "user", Provider.FEED, "alice")
HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = 400_000


@contextmanager
def dripping(start: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends `start`, then `drop` again and again."""
    ended = threading.Event()

    def drip(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.recv(65_536)
            line.sendall(start)
            while not ended.wait(0.02):
                line.sendall(drop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"H"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (HEAD + b"X-Name: ", b"a"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"a"),
        (HEAD + b"Connection: close\r\n\r\n[1,", b"2,"),
        (HEAD + b"Connection: close\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08" + b"\0" * 6, b"name"),
    ],
    ids=["status line", "early hints", "header", "chunk extension", "body", "name inside gzip"],
)
def test_a_server_that_drips_is_left_at_the_deadline(
    fetcher_with: FetcherWith, start: bytes, drop: bytes
) -> None:
    with dripping(start, drop) as url, pytest.raises((ProviderUnavailable, MalformedAnswer)) as failed:
        fetcher_with(deadline=timedelta(milliseconds=300), attempts=2).get(ALICE, url)
    assert "\n" not in str(failed.value)


def test_an_import_of_one_account_is_bounded_as_a_whole(
    provider: FakeProvider, fetcher_with: FetcherWith
) -> None:
    provider.on("/", Answer({}))
    with pytest.raises(ProviderUnavailable, match="goes on from here"):
        fetcher_with(longest=timedelta(0)).get(ALICE, provider.origin)


def test_layers_of_compression_are_not_unpacked(provider: FakeProvider, fetcher_with: FetcherWith) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 50_000_000))
    provider.on("/", Answer(bomb, headers={"Content-Encoding": "gzip, gzip"}))
    with pytest.raises(MalformedAnswer, match="compression"):
        fetcher_with().get(ALICE, provider.origin)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b'{"a": 1}')),
        ("deflate", zlib.compress(b'{"a": 1}')),
        ("deflate", zlib.compress(b'{"a": 1}')[2:-4]),
    ],
    ids=["gzip", "zlib", "raw deflate"],
)
def test_every_compression_that_we_ask_for_is_read(
    provider: FakeProvider, fetcher_with: FetcherWith, coding: str, packed: bytes
) -> None:
    provider.on("/", Answer(packed, headers={"Content-Encoding": coding}))
    assert fetcher_with().get(ALICE, provider.origin).json() == {"a": 1}


@pytest.mark.parametrize(
    "markup",
    [
        "a" + " " * LONG + "b",
        "<pre>" + "\t" * LONG + "b</pre>",
        "<p>" + "<br> " * (LONG // 5),
        "<" * LONG,
        "<!--" * (LONG // 4),
        "&" * LONG,
    ],
    ids=["blanks", "preformatted", "breaks", "brackets", "comments", "ampersands"],
)
def test_hostile_markup_is_read_in_linear_time(markup: str) -> None:
    """One that is not takes hours, so the suite's own time limit ends this test."""
    html_to_text(markup)


@pytest.mark.parametrize("piece", ["a.", "a-", "a@", "1-", "#1", "`"])
def test_words_of_hostile_text_are_found_in_linear_time(piece: str) -> None:
    for _ in range(100):
        content_runs(piece * 3_000)


def feed(before: bytes = b"", item: bytes = b"") -> Answer:
    body = b'<?xml version="1.0"?>' + before + b'<rss version="2.0"><channel><item><title>kept</title>'
    return Answer(body + item + b"</item></channel></rss>")


def test_an_endless_author_is_cut(provider: FakeProvider, importing: Importing) -> None:
    provider.on("/", feed(item=b"<author>" + b"a" * LONG + b"</author>"))
    importing.run(importing.account(Provider.FEED))
    assert [post.text for post in importing.posts().values()] == ["kept"]


@pytest.mark.parametrize("before", [b"\n", b"\n<!ENTITY ", b"<!DOCTYPE "])
def test_an_endless_prolog_is_no_feed(provider: FakeProvider, importing: Importing, before: bytes) -> None:
    provider.on("/", feed(before=before * LONG))
    with pytest.raises(MalformedAnswer, match="cannot be read"):
        importing.run(importing.account(Provider.FEED))


@pytest.mark.parametrize("address", ["fec0::1", "::127.0.0.1", "64:ff9b:1::7f00:1", "2001:0:7f00:1::"])
def test_addresses_that_only_look_public_are_not(address: str) -> None:
    assert not is_public(address)
