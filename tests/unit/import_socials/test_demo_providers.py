"""The demo's server speaks the providers' APIs: the importers bring home every post of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from tasks.demo.demo_posts import DemoAccount, read_accounts
from tasks.demo.providers_server import AccountSeed, demo_accounts, providers_server
from tasks.import_socials.errors import TokenRefused
from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.models import Account, Page, Provider
from tasks.import_socials.plain import clean
from tasks.import_socials.providers import importer_for

CORPUS = {(account.provider, account.handle): account for account in read_accounts()}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with providers_server(latency=timedelta(0), page_size=4) as url:
        yield url


def seed(url: str, provider: str, handle: str) -> AccountSeed:
    return next(s for s in demo_accounts(url) if (s.provider, s.handle) == (provider, handle))


def imported(seed: AccountSeed, cursor: dict[str, object] | None = None) -> list[Page]:
    account = Account("id", "user", Provider(seed.provider), seed.handle, seed.server, seed.token)
    waits: list[float] = []
    with Fetcher(FetchPolicy(allow_private=True), sleep=waits.append) as fetcher:
        return list(importer_for(account, fetcher).pages(cursor or {}))


@pytest.mark.parametrize("account", [a for a in CORPUS.values() if not a.revoked], ids=lambda a: a.handle)
def test_every_post_of_the_corpus_is_imported_once(url: str, account: DemoAccount) -> None:
    pages = imported(seed(url, account.provider, account.handle))
    posts = [post for page in pages for post in page.posts]
    assert len({post.external_id for post in posts}) == len(posts) == sum(p.own for p in account.posts)
    texts = sorted(clean(post.text) for post in posts)
    for post in (post for post in account.posts if post.own):
        first_words = post.text.split("\n")[0].replace("*", "").split("http")[0].strip()
        assert any(first_words in text.replace("*", "") for text in texts)
    assert len(pages) > 1 or len(posts) <= 4 or account.provider == "feed"


@pytest.mark.parametrize(
    ("provider", "handle"), [("mastodon", "maya"), ("feed", "jonas-notes"), ("reddit", "maya_brews")]
)
def test_a_second_import_brings_nothing_new(url: str, provider: str, handle: str) -> None:
    first = imported(seed(url, provider, handle))
    again = imported(seed(url, provider, handle), dict(first[-1].cursor))
    assert sum(len(page.posts) for page in again) == 0


def test_ids_and_times_are_the_same_in_every_run(url: str) -> None:
    with providers_server(latency=timedelta(0), page_size=4) as other:
        for provider, handle in [("mastodon", "kenji"), ("feed", "maya-blog"), ("hackernews", "jbrandt")]:
            one, two = (imported(seed(origin, provider, handle)) for origin in (url, other))
            assert [p.external_id for page in one for p in page.posts] == [
                p.external_id for page in two for p in page.posts
            ]


def test_a_revoked_token_is_refused(url: str) -> None:
    with pytest.raises(TokenRefused):
        imported(seed(url, "reddit", "frog_and_lantern"))


def test_an_unknown_user_is_unknown_everywhere(url: str) -> None:
    assert httpx.get(f"{url}/api/v1/accounts/lookup?acct=nobody").status_code == 404
    answer = httpx.get(f"{url}/xrpc/app.bsky.feed.getAuthorFeed?actor=nobody")
    assert (answer.status_code, answer.json()["message"]) == (400, "Profile not found")
    assert httpx.get(f"{url}/api/v1/users/nobody").status_code == 404
    assert httpx.get(f"{url}/feeds/nobody.xml").status_code == 404
    assert httpx.get(f"{url}/user/nobody/overview").status_code == 401


def test_one_account_is_told_once_to_come_back_later() -> None:
    with providers_server(latency=timedelta(0)) as url:
        answers = [httpx.get(f"{url}/api/v1/accounts/lookup?acct=jonas") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["Retry-After"] == "1"


def test_mastodon_pages_link_both_ways(url: str) -> None:
    number = httpx.get(f"{url}/api/v1/accounts/lookup?acct=maya").json()["id"]
    first = httpx.get(f"{url}/api/v1/accounts/{number}/statuses?limit=3")
    second = httpx.get(first.links["next"]["url"])
    third = httpx.get(second.links["next"]["url"])
    back = httpx.get(third.links["prev"]["url"])
    ids = [status["id"] for page in (first, second, third) for status in page.json()]
    assert len(set(ids)) == 9
    assert [status["id"] for status in back.json()] == ids[3:6]


def test_bluesky_pages_do_not_overlap(url: str) -> None:
    feed = f"{url}/xrpc/app.bsky.feed.getAuthorFeed?actor=maya.example&limit=4"
    first = httpx.get(feed).json()
    second = httpx.get(f"{feed}&cursor={first['cursor']}").json()
    uris = [item["post"]["uri"] for page in (first, second) for item in page["feed"]]
    assert len(set(uris)) == 8


def test_an_unchanged_feed_is_not_sent_again(url: str) -> None:
    first = httpx.get(f"{url}/feeds/jonas-notes.xml")
    again = httpx.get(f"{url}/feeds/jonas-notes.xml", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_hacker_news_filters_and_pages(url: str) -> None:
    search = f"{url}/api/v1/search_by_date?tags=author_mayalind"
    first = httpx.get(f"{search}&hitsPerPage=3").json()
    second = httpx.get(f"{search}&hitsPerPage=3&page=1").json()
    assert (first["nbHits"], len(second["hits"])) == (len(CORPUS["hackernews", "mayalind"].posts), 3)
    oldest = first["hits"][-1]["created_at_i"]
    older = httpx.get(f"{search}&hitsPerPage=3&numericFilters=created_at_i<{oldest}").json()
    assert older["hits"] == second["hits"]


def test_the_corpus_has_what_the_demo_shows() -> None:
    posts = [post for account in CORPUS.values() for post in account.posts]
    assert len(posts) >= 300
    assert {account.user for account in CORPUS.values()} == {"maya", "jonas", "sofia", "kenji", "priya"}
    assert {"en", "de", "es", "ja"} == {post.language for post in posts}
    assert any(post.boost_of for post in posts)
    assert any(post.edited for post in posts)
    assert any(post.removed for post in posts)
    assert any(not account.posts for account in CORPUS.values())
    assert any(account.revoked for account in CORPUS.values())
    texts = [post.text for post in posts if not post.removed]
    assert len(set(texts)) == len(texts)


def test_tokens_do_not_show(url: str) -> None:
    assert "demo-token" not in repr(demo_accounts(url)) + repr(read_accounts())
