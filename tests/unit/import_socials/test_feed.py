from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime

import pytest

from tasks.import_socials.errors import AccountError, MalformedAnswer, UnknownAccount
from tasks.import_socials.models import Post, Provider
from tests.unit.import_socials.conftest import Importing
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider

RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel>
<title>Alice writes</title><link>https://blog.example/</link>
<item><guid isPermaLink="false">post-2</guid><title>Fish &amp; chips</title><link>/2</link>
  <pubDate>Fri, 02 Jan 2026 03:04:05 +0100</pubDate><description>teaser</description>
  <content:encoded><![CDATA[<p>The whole &lt;text&gt;</p><p>in two</p>
<script>x()</script> ]]></content:encoded>
</item>
<item><guid isPermaLink="false">post-1</guid><title>Older</title><link>javascript:alert(1)</link>
  <pubDate>the other day</pubDate></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Bob</title>
<entry><id>tag:b,1</id><title type="html">A &amp;lt;b&gt;</title><updated>2026-01-02T03:04:05Z</updated>
<author><name>Bob</name></author><link href="https://b.example/1"/>
<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><p>x</p><p>y</p></div></content></entry></feed>"""


def imported(importing: Importing, provider: FakeProvider, body: bytes, **headers: str) -> dict[str, Post]:
    provider.on("/feed", Answer(body, headers=headers))
    importing.run(importing.account(Provider.FEED, "blog", server=importing.origin + "/feed"))
    return importing.posts()


def test_an_rss_entry_becomes_a_plain_post(provider: FakeProvider, importing: Importing) -> None:
    posts = imported(importing, provider, RSS.encode())
    assert posts["post-2"] == Post(
        external_id="post-2",
        author="Alice writes",
        text="Fish & chips\n\nThe whole <text>\n\nin two",
        url=f"{importing.origin}/2",
        published_at=datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
    )
    assert (posts["post-1"].url, posts["post-1"].published_at) == (None, None)


def test_an_atom_entry_becomes_a_plain_post(provider: FakeProvider, importing: Importing) -> None:
    [post] = imported(importing, provider, ATOM.encode()).values()
    assert (post.external_id, post.author, post.url) == ("tag:b,1", "Bob", "https://b.example/1")
    assert post.text == "A <b>\n\nx\n\ny"


def test_a_json_feed_becomes_plain_posts(provider: FakeProvider, importing: Importing) -> None:
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": "Carol",
        "items": [
            {
                "id": "2",
                "title": "T",
                "content_html": "<p>a<br>b</p>",
                "date_published": "2026-01-02T03:04:05Z",
            },
            {"id": 1, "content_text": "plain <text>", "url": "/one", "authors": [{"name": "Dan"}]},
            {"content_text": "no id"},
            "strange",
        ],
    }
    posts = imported(importing, provider, b"\xef\xbb\xbf" + json.dumps(feed).encode())
    assert (posts["2"].text, posts["2"].author) == ("T\n\na\nb", "Carol")
    assert (posts["1"].text, posts["1"].author, posts["1"].url) == (
        "plain <text>",
        "Dan",
        f"{importing.origin}/one",
    )
    assert len(posts) == 3


def test_a_json_feed_is_read_to_its_last_page_on_its_own_server_only(
    provider: FakeProvider, importing: Importing
) -> None:
    def page(number: int, following: str) -> Answer:
        feed = {
            "version": "https://jsonfeed.org/version/1",
            "items": [{"id": str(number)}],
            "next_url": following,
        }
        return Answer(feed)

    provider.on("/feed", page(1, "/feed2"))
    provider.on("/feed2", page(2, "/feed"))
    account = importing.account(Provider.FEED, "blog", server=importing.origin + "/feed")
    assert importing.run(account).imported == 2
    provider.on("/feed2", page(2, "http://elsewhere.example/feed3"))
    importing.run(importing.account(Provider.FEED, "again", server=importing.origin + "/feed"))
    assert {asked.path for asked in provider.asked} == {"/feed", "/feed2"}


def test_an_unchanged_feed_is_not_sent_again(provider: FakeProvider, importing: Importing) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("if-none-match") == '"v1"':
            return Answer(b"", 304)
        return Answer(
            RSS.encode(), headers={"ETag": '"v1"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        )

    provider.on("/feed", answer)
    account = importing.account(Provider.FEED, "blog", server=importing.origin + "/feed")
    assert importing.run(account).imported == 2
    for _ in range(2):
        assert importing.run(account).line == "no new posts"
    assert provider.asked[-1].headers["if-modified-since"] == "Fri, 02 Jan 2026 03:04:05 GMT"


def test_a_changed_feed_brings_new_and_edited_entries(provider: FakeProvider, importing: Importing) -> None:
    imported(importing, provider, RSS.encode())
    edited = RSS.replace("Older", "Older, edited").replace("post-2", "post-3")
    provider.on("/feed", Answer(edited.encode()))
    outcome = importing.run(importing.account(Provider.FEED, "blog", server=importing.origin + "/feed"))
    assert (outcome.imported, outcome.updated) == (1, 1)
    assert outcome.line == "1 new post, 1 changed"


@pytest.mark.parametrize(
    "body",
    [
        RSS.encode().replace(b"<channel>", b"<channel><bad & broken=x>"),
        RSS.encode() + b"<script>injected by a proxy</script>",
        b"\n\n  " + RSS.encode(),
        RSS.replace("utf-8", "windows-1251").encode("windows-1251"),
        RSS.replace("utf-8", "utf-16").encode("utf-16"),
        b"\xef\xbb\xbf" + RSS.encode(),
        gzip.compress(RSS.encode()),
        re.sub(r"(</?)(?=item|title|guid|link|pubDate)", r"\1rss:", RSS).replace("2.0", "2.0 ").encode()
        + b"<bad & end",
        RSS.encode().replace(b"Older", b"Ol\xffder"),
        RSS.encode()[: RSS.index("</channel>")],
    ],
    ids=["tags", "junk", "space", "cyrillic", "utf-16", "bom", "gzip", "prefix", "bytes", "truncated"],
)
def test_a_broken_feed_gives_what_can_be_read(
    provider: FakeProvider, importing: Importing, body: bytes
) -> None:
    assert imported(importing, provider, body).keys() == {"post-1", "post-2"}


def test_entries_without_ids_are_known_again_and_repeated_ids_count_once(
    provider: FakeProvider, importing: Importing
) -> None:
    body = b"""<rss version="2.0"><channel><title>t</title>
    <item><title>One</title></item><item><title>Two</title></item><item/>
    <item><guid>a</guid><title>first</title></item><item><guid>a</guid><title>again</title></item>
    </channel></rss>"""
    imported(importing, provider, body)
    posts = imported(importing, provider, body)
    assert sorted(post.text for post in posts.values()) == ["One", "Two", "first"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!doctype html><html><body>Sign in", "an HTML page, no feed"),
        (b"", "nothing, no feed"),
        (b"<rss version='2.0'><channel><item", "the feed is broken"),
        (b'{"items": []}', "JSON that is no feed"),
        (b'{"version": "https://jsonfeed.org/version/1", "items": [', "broken JSON"),
        (b'{"version": "https://jsonfeed.org/version/1"}', "no list of items"),
        (b"\x1f\x8bbroken", "compression is broken"),
        (b"just text", "the feed is broken"),
    ],
)
def test_what_is_no_feed_is_told_as_what_it_is(
    provider: FakeProvider, importing: Importing, body: bytes, told: str
) -> None:
    with pytest.raises(MalformedAnswer, match=told):
        imported(importing, provider, body)


def test_a_feed_without_entries_is_no_failure(provider: FakeProvider, importing: Importing) -> None:
    provider.on("/feed", Answer(b'<rss version="2.0"><channel><title>New</title></channel></rss>'))
    account = importing.account(Provider.FEED, "blog", server=importing.origin + "/feed")
    assert importing.run(account).line == "no posts yet"


def test_a_feed_that_is_gone_is_told(importing: Importing) -> None:
    with pytest.raises(UnknownAccount):
        importing.run(importing.account(Provider.FEED, "blog", server=importing.origin + "/feed"))


def test_a_local_file_is_no_feed(importing: Importing) -> None:
    for address in ("/etc/passwd", "file:///etc/passwd"):
        with pytest.raises(AccountError):
            importing.run(importing.account(Provider.FEED, address, server=None))


def test_a_bomb_is_not_unpacked(provider: FakeProvider, importing: Importing) -> None:
    bomb = gzip.compress(b"<rss version='2.0'><channel>" + b" " * 50_000_000)
    with pytest.raises(MalformedAnswer):
        imported(importing, provider, bomb)
