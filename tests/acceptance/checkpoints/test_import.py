"""The import of this deployment, killed amid an account's pages: it goes on with the next page."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery

from bridge.limits.scripts import LimitScripts
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings, OutboxSettings
from tasks.demo import provider_answers as answers
from tasks.demo.demo_posts import DemoAccount, read_accounts
from tests.acceptance.checkpoints.conftest import LEASE, History, Shown, falls
from tests.acceptance.limits.fleet import Fleet
from tests.conftest import User
from tests.processes import bridge
from tests.unit.import_socials.fake_provider import Answer, Asked, FakeProvider, fake_provider
from tests.waiting import PATIENCE, wait_until

HANDLES = ("kenji", "sofia", "jonas")
"""In the order of their import; each has about 28 posts."""

PAGE = 5
KILLED_AT = 4
"""The page of the second account that the worker is asking for when it is killed."""

STORED = f"{(KILLED_AT - 1) * PAGE} posts"


@dataclass
class Server:
    """A Mastodon server with small pages, which does not answer one request until it may."""

    provider: FakeProvider
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        found = [each for each in read_accounts() if each.provider == "mastodon"]
        self.accounts = {each.handle: each for each in found if each.handle in HANDLES}
        self.provider.on("/api/v1/accounts/lookup", self._lookup)
        for account in self.accounts.values():
            path = f"/api/v1/accounts/{answers.account_number(account)}/statuses"
            self.provider.on(path, partial(self._statuses, account))

    def asked_for(self, handle: str) -> list[tuple[str | None, str | None]]:
        """(max_id, since_id) of the pages that were asked for."""
        number = answers.account_number(self.accounts[handle])
        asked = [each.query for each in self.provider.asked if number in each.path]
        return [(each.get("max_id"), each.get("since_id")) for each in asked]

    def _lookup(self, asked: Asked) -> Answer:
        account = self.accounts[asked.query["acct"]]
        return Answer(answers.mastodon_account(account, self.provider.origin))

    def _statuses(self, account: DemoAccount, asked: Asked) -> Answer:
        if account.handle == HANDLES[1] and len(self.asked_for(account.handle)) == KILLED_AT:
            self.reached.set()
            self.released.wait(3 * PATIENCE)
        newest, oldest = int(asked.query.get("max_id", 2**63)), int(asked.query.get("since_id", 0))
        posts = [post for post in account.posts if oldest < post.number < newest and not post.boost_of]
        page = posts[:PAGE]
        more = f'<{asked.path}?max_id={page[-1].number}>; rel="next"' if len(posts) > PAGE else ""
        found = [answers.mastodon_status(account, post, self.provider.origin) for post in page]
        return Answer(found, headers={"Link": more})


@dataclass
class Import:
    """An import whose worker was killed."""

    server: Server
    shown: list[Shown]
    asked_before: int
    posts: Counter[tuple[str, str]]
    lines: list[str]
    result: Any


@pytest.fixture(scope="module")
def own_settings(stack: RunningStack) -> BridgeSettings:
    """Of the deployment, as far as tests look at them."""
    return BridgeSettings(outbox=OutboxSettings(redis_url=stack.redis_url))


@pytest.fixture(scope="module")
def deployed(stack: RunningStack, own_settings: BridgeSettings) -> Iterator[None]:
    """The environment of this deployment's processes."""
    values = {
        "REDIS_URL": stack.redis_url,
        "LIMITS_REDIS_URL": stack.redis_url,
        "LIMITS_LEASE_SECONDS": str(LEASE.seconds),
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
        "PROVIDERS_ALLOW_PRIVATE_HOSTS": "true",
    }
    with redis.Redis.from_url(stack.redis_url) as client, pytest.MonkeyPatch.context() as patch:
        scripts = LimitScripts(client, own_settings.outbox.prefix)
        scripts.declare({}, LEASE, timedelta(seconds=5), nothing_runs=True)
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def imported(
    stack: RunningStack,
    own_settings: BridgeSettings,
    deployed: None,
    history: History,
    user: User,
    tmp_path: Path,
) -> Iterator[Import]:
    fleet = Fleet(own_settings, tmp_path, app="tasks")
    with fake_provider() as provider, bridge(own_settings, tmp_path, "tasks"):
        server = Server(provider)
        connect(stack, user, provider.origin)
        try:
            first = fleet.launch("threads", 2, "-Q", "io")
            run = send(stack, user)
            assert server.reached.wait(2 * PATIENCE), fleet.output()[-3_000:]
            wait_until(lambda: shows(history, run, STORED), "its row shows what is stored")
            first.kill("plug")
            asked_before = len(provider.asked)
            server.released.set()
            fleet.launch("threads", 2, "-Q", "io")
            wait_until(lambda: history.is_final(run), "it ends")
        finally:
            server.released.set()
            fleet.end()
        shown, lines, result = history.of(run), history.lines(run), history.result(run)
        yield Import(server, shown, asked_before, posts(stack, user), lines, result)


def connect(stack: RunningStack, user: User, origin: str) -> None:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        for place, handle in enumerate(HANDLES):
            connection.execute(
                "insert into social_accounts (user_id, provider, handle, server, created_at)"
                " values (%s, 'mastodon', %s, %s, now() + %s * interval '1 second')",
                (user.id, handle, origin, place),
            )


def send(stack: RunningStack, user: User) -> str:
    with Celery("sender", broker=stack.redis_url, set_as_current=False) as app:
        task = "tasks.import_socials.import_socials"
        return str(app.send_task(task, kwargs={"user_id": user.id}, queue="io").id)


def posts(stack: RunningStack, user: User) -> Counter[tuple[str, str]]:
    query = (
        "select handle, external_id from posts join social_accounts a on a.id = account_id"
        " where posts.user_id = %s"
    )
    with psycopg.connect(stack.database_url) as connection:
        return Counter((handle, post) for handle, post in connection.execute(query, (user.id,)))


def shows(history: History, run: str, text: str) -> bool:
    last = history.last(run)
    return last is not None and text in (last.message or "")


def test_an_import_whose_worker_is_killed_goes_on_with_the_next_page(imported: Import) -> None:
    server, shown = imported.server, imported.shown
    assert (shown[-1].status, shown[-1].attempt) == ("completed", 2)

    again = Counter(server.asked_for(HANDLES[1]))
    (unanswered,) = [page for page, times in again.items() if times > 1]
    assert (again[unanswered], unanswered) == (2, server.asked_for(HANDLES[1])[KILLED_AT - 1])
    for handle in (HANDLES[0], HANDLES[2]):
        assert max(Counter(server.asked_for(handle)).values()) == 1
    afterwards = server.provider.asked[imported.asked_before :]
    done = answers.account_number(server.accounts[HANDLES[0]])
    assert not [each for each in afterwards if done in each.path or each.query.get("acct") == HANDLES[0]]

    own = {(name, str(post.number)) for name, it in server.accounts.items() for post in it.posts if post.own}
    assert imported.posts == Counter(dict.fromkeys(own, 1))
    assert imported.result["imported"] == len(own)
    told = {line.split(":")[0]: line for line in imported.lines}
    assert len(told) == len(imported.lines)
    assert told[f"mastodon/{HANDLES[1]}"] == f"mastodon/{HANDLES[1]}: {_new(own, HANDLES[1])} new posts"

    assert falls(shown) == []
    second = [each.message or "" for each in shown if each.attempt == 2]
    assert any(message.startswith(f"Importing Mastodon ({HANDLES[1]})...") for message in second)
    assert not any(HANDLES[0] in message for message in second)


def _new(own: set[tuple[str, str]], handle: str) -> int:
    return sum(name == handle for name, _ in own)
