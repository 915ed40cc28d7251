from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.demo.recordings import RecordedAccount, recordings
from tasks.import_socials.errors import AccountError
from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.importing import import_account
from tasks.import_socials.memory_store import MemoryStore
from tasks.import_socials.models import Account, Provider

STATUS = {
    "created_at": "2026-01-02T03:04:05Z",
    "content": "<p>x</p>",
    "account": {"acct": "a"},
    "reblog": None,
}


def exchange(url: str, body: Any, status: int = 200, **headers: str) -> dict[str, Any]:
    request = {"method": "GET", "url": url, "host": "social.example", "headers": {}}
    return {"request": request, "response": {"status": status, "headers": headers, "body": body}}


def write(directory: Path, name: str, *exchanges: dict[str, Any]) -> None:
    path = directory / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"source": {}, "exchanges": exchanges}))


def run(recorded: RecordedAccount, waits: list[float]) -> tuple[set[str], AccountError | None]:
    """What an import of the account stores, and how it failed."""
    account = Account("1", "user", recorded.provider, recorded.handle, recorded.server, recorded.token)
    store = MemoryStore.of(account)
    failure = None
    with Fetcher(FetchPolicy(allow_private=True), sleep=waits.append) as fetcher:
        try:
            for _ in import_account(account, store, fetcher):
                pass
        except AccountError as error:
            failure = error
    return {post.external_id for _, post in store.posts.values()}, failure


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    statuses = [{**STATUS, "id": str(number)} for number in range(9, 0, -1)]
    url = "/api/v1/accounts/3/statuses?limit=3"
    for start, name in ((0, "pages"), (0, "torn")):
        pages = [
            exchange(
                url + (f"&max_id={statuses[at - 1]['id']}" if at else ""),
                statuses[at : at + 3],
                Link=f'<https://social.example{url}&max_id={statuses[at + 2]["id"]}>; rel="next"',
            )
            for at in (start, 3, 6)
        ]
        # The torn case lacks its middle page, so its pages do not follow one another.
        write(tmp_path, f"mastodon/{name}", *(pages if name == "pages" else [pages[0], pages[2]]))
    write(
        tmp_path,
        "mastodon/thread",
        exchange("/context", {"ancestors": statuses[:1], "descendants": statuses[4:6]}),
    )
    write(tmp_path, "mastodon/poll", exchange("/api/v1/polls/1", {"id": "1", "votes_count": 3}))
    write(tmp_path, "reddit/gone", exchange("/user/x", {"error": 404}, 404))
    write(tmp_path, "reddit/moved", exchange("/x", "", 301, Location="https://www.reddit.com/elsewhere"))
    item = {"id": 5, "type": "story", "by": "pg", "title": "A story", "time": 1_600_000_000}
    write(tmp_path, "hackernews/item", exchange("/v0/item/5.json", item))
    feed = "<rss version='2.0'><channel><title>t</title><item><guid>g1</guid></item></channel></rss>"
    write(tmp_path, "feeds/two", exchange("/a.xml", feed), exchange("/b.xml", "<html>sign in"))
    return tmp_path


def test_every_post_of_a_case_is_imported_and_every_broken_case_fails_with_one_line(directory: Path) -> None:
    with recordings(directory) as served:
        assert [left.case for left in served.left_out] == ["poll"]
        seen = {}
        for recorded in served.accounts:
            ids, failure = run(recorded, [])
            assert len(ids) == recorded.posts, recorded
            assert recorded.expected_posts <= ids
            assert (failure is not None) == recorded.expects_failure, recorded
            seen[recorded.handle] = (len(ids), recorded.as_recorded, failure.code if failure else None)
    assert seen == {
        "pages": (9, True, None),
        "torn": (6, False, None),
        "thread": (3, False, None),
        "gone": (0, True, "unknown_account"),
        "moved": (0, True, "malformed_answer"),
        "item": (1, False, None),
        "two/a.xml": (1, True, None),
        "two/b.xml": (0, True, "malformed_answer"),
    }


def test_a_directory_without_recordings_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="holds no recordings; expected folders bluesky, feeds"),
        recordings(tmp_path),
    ):
        pass
    write(tmp_path, "reddit/broken")
    (tmp_path / "reddit/broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.json is no recorded case"), recordings(tmp_path):
        pass


@pytest.mark.skipif(
    "TASKCAST_RECORDINGS" not in os.environ, reason="set TASKCAST_RECORDINGS to a folder of recordings"
)
@pytest.mark.parametrize("provider", list(Provider))
def test_recorded_answers_of_the_real_providers_are_imported_whole(provider: Provider) -> None:
    wrong, waits = [], list[float]()
    with recordings(Path(os.environ["TASKCAST_RECORDINGS"])) as served:
        for recorded in (account for account in served.accounts if account.provider is provider):
            ids, failure = run(recorded, waits)
            complete = len(ids) == recorded.posts and recorded.expected_posts <= ids
            if not complete or (failure is not None) != recorded.expects_failure:
                wrong.append((recorded.handle, recorded.posts, len(ids), failure))
    assert wrong == []
