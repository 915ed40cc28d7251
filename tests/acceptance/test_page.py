"""The page in a real browser: what it shows of a user's runs, and what it never shows."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bridge.local.running import RunningStack
from bridge.web.build import build
from tasks.demo.web import DemoSite
from tests.acceptance.announcer import Announcer
from tests.acceptance.site import CHROMIUM_FLAGS, serving
from tests.conftest import User
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> \u202eevil"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser on PATH ({', '.join(names)})")
    build()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A visitor of the page: a user of their own in a browser context of their own."""

    def __init__(self, page: Page, announcer: Announcer, started: dict[str, tuple[str, bool]]) -> None:
        self.page, self.announcer, self.started = page, announcer, started

    @property
    def user_id(self) -> str:
        """Whom the page signed in, read where supabase-js keeps the session."""
        self.page.wait_for_function("Object.keys(localStorage).some(key => key.endsWith('-auth-token'))")
        found: str = self.page.evaluate(
            "JSON.parse(Object.entries(localStorage).find(([key]) => key.endsWith('-auth-token'))[1]).user.id"
        )
        return found

    @property
    def live(self) -> None:
        expect(self.page.locator("#connection")).to_have_text("Live", timeout=30_000)

    def start(self) -> str:
        """Press the button; the run's id."""
        user_id = self.user_id
        before = set(self.started)
        self.page.get_by_role("button", name="Import my socials").click()
        wait_until(
            lambda: [run for run in set(self.started) - before if self.started[run][0] == user_id],
            "the import was asked for",
        )
        return next(run for run in set(self.started) - before if self.started[run][0] == user_id)

    def run(self, run_id: str) -> Locator:
        return self.page.locator(f"[data-run='{run_id}']")

    def shows(self, run_id: str, percent: int, status: str | None = None, message: str | None = None) -> None:
        """The bar, and what stands around it, are right now or soon."""
        card = self.run(run_id)
        expect(card.get_by_role("progressbar")).to_have_attribute(
            "aria-valuenow", str(percent), timeout=30_000
        )
        if status is not None:
            expect(card.locator(".badge")).to_have_text(status)
        if message is not None:
            expect(card.locator(".message")).to_have_text(message)


@pytest.fixture(scope="module")
def started() -> dict[str, tuple[str, bool]]:
    """Runs that were asked for: by id, whose, and whether in parallel."""
    return {}


@pytest.fixture(scope="module")
def announcer(stack: RunningStack) -> Announcer:
    return Announcer(stack)


@pytest.fixture(scope="module")
def site(
    stack: RunningStack, announcer: Announcer, started: dict[str, tuple[str, bool]]
) -> Iterator[DemoSite]:
    async def seed(user_id: str) -> None:
        assert uuid.UUID(user_id)

    def start(user_id: str, parallel: bool) -> str:
        run_id = announcer.begin(user_id)
        started[run_id] = (user_id, parallel)
        return run_id

    with serving(
        lambda: DemoSite(stack.url, stack.anon_key, seed, start, starts_of_a_user=3)
    ) as serving_site:
        yield serving_site


@pytest.fixture
def visit(
    browser: Browser, site: DemoSite, announcer: Announcer, started: dict[str, tuple[str, bool]]
) -> Iterator[Callable[[], Visit]]:
    contexts = []
    troubles: list[str] = []

    def come() -> Visit:
        context = browser.new_context(locale="en-GB")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(site.url)
        visit = Visit(page, announcer, started)
        _ = visit.live
        return visit

    yield come
    for context in contexts:
        context.close()
    assert not troubles


def test_a_bar_moves_without_a_reload(visit: Callable[[], Visit]) -> None:
    here = visit()
    run = here.start()
    here.shows(run, 0, "Queued")
    here.announcer.announce(
        run, (("info", "12 new posts"),), status="in_progress", progress=25, step="Mastodon",
        message="Importing Mastodon (maya)...", current=10, total=40,
    )  # fmt: skip
    here.shows(run, 25, "Running", "Importing Mastodon (maya)...")
    expect(here.run(run)).to_contain_text("10 of 40")
    expect(here.run(run).get_by_role("log")).to_contain_text("12 new posts")
    here.announcer.announce(run, status="completed")
    here.shows(run, 100, "Completed", "Done")


def test_a_reload_shows_the_same_user_and_the_same_runs(visit: Callable[[], Visit]) -> None:
    here = visit()
    done, running = here.start(), here.start()
    here.announcer.announce(done, (("warning", "2 posts skipped"),), status="completed")
    here.announcer.announce(running, status="in_progress", progress=40, message="Importing Bluesky...")
    here.shows(running, 40)
    user_id = here.user_id
    here.page.reload()
    here.shows(done, 100, "Completed")
    here.shows(running, 40, "Running", "Importing Bluesky...")
    assert here.user_id == user_id
    assert here.page.locator(".run").evaluate_all("cards => cards.map(card => card.dataset.run)") == [
        running,
        done,
    ]
    here.run(done).locator("summary").click()
    expect(here.run(done).get_by_role("log")).to_contain_text("2 posts skipped")


def test_the_choice_and_a_failure_reach_the_other_side(visit: Callable[[], Visit]) -> None:
    here = visit()
    here.page.get_by_text("In parallel").click()
    run = here.start()
    assert here.started[run] == (here.user_id, True)
    here.announcer.announce(run, status="in_progress", attempt=2, max_attempts=3, progress=10)
    expect(here.run(run)).to_contain_text("attempt 2 of 3")
    here.announcer.announce(
        run, attempt=2, status="failed", error_code="token_refused",
        error_message="reddit/maya: the token was refused (401); connect the account again",
    )  # fmt: skip
    here.shows(run, 10, "Failed")
    expect(here.run(run).locator(".error")).to_contain_text("the token was refused")


def test_hostile_strings_are_shown_as_text(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here = visit()
    run = here.start()
    here.announcer.announce(
        run, (("error", HOSTILE),), status="in_progress", progress=5, message=HOSTILE, step=HOSTILE
    )
    here.shows(run, 5, message=HOSTILE)
    expect(here.run(run).get_by_role("log")).to_contain_text(HOSTILE)
    topics_for(announcer, here.user_id, HOSTILE)
    here.announcer.announce(run, status="failed", error_code="x", error_message=HOSTILE)
    expect(here.run(run).locator(".error")).to_have_text(HOSTILE)
    expect(here.page.locator(".topic h3")).to_have_text(HOSTILE)
    expect(here.page.locator(".topic blockquote")).to_have_text(HOSTILE)
    assert here.page.locator("main img, main script").count() == 0
    assert "owned" not in here.page.title()


def test_another_users_run_is_not_seen(visit: Callable[[], Visit]) -> None:
    here, elsewhere = visit(), visit()
    assert here.user_id != elsewhere.user_id
    theirs, mine = elsewhere.start(), here.start()
    here.announcer.announce(theirs, status="in_progress", progress=70)
    here.announcer.announce(mine, status="in_progress", progress=30)
    elsewhere.shows(theirs, 70)
    here.shows(mine, 30)
    here.page.reload()
    here.shows(mine, 30)
    expect(here.page.locator(".run")).to_have_count(1)


def test_an_older_snapshot_never_replaces_a_newer_one(visit: Callable[[], Visit]) -> None:
    here = visit()
    run = here.start()
    old = here.announcer.write(run, status="in_progress", progress=20)
    here.announcer.announce(run, progress=60)
    here.shows(run, 60)
    here.announcer.tell(old["channel"], old["snapshot"])
    marker = here.start()  # announced after the old one, so it is drawn after it
    here.shows(marker, 0)
    here.shows(run, 60)


def test_parts_tell_what_they_do_on_the_bar_of_the_whole(visit: Callable[[], Visit]) -> None:
    here = visit()
    run = here.start()
    named = {"user_id": here.user_id, "root_id": run, "parent_id": run, "task": "part"}
    named |= {"channel": f"import-socials-{here.user_id}"}
    here.announcer.announce(run, status="in_progress")
    here.announcer.announce(
        str(uuid.uuid4()), (("info", "40 new posts"),), status="in_progress", progress=50,
        message="Importing Reddit (maya)...", **named,
    )  # fmt: skip
    here.shows(run, 50, "Running", "Importing Reddit (maya)...")
    expect(here.run(run).get_by_role("log")).to_contain_text("40 new posts")
    expect(here.page.locator(".run")).to_have_count(1)
    here.page.reload()
    expect(here.run(run).get_by_role("log")).to_contain_text("40 new posts")


def test_after_an_outage_of_realtime_the_bar_is_right_again(
    visit: Callable[[], Visit], stack: RunningStack
) -> None:
    here = visit()
    run = here.start()
    here.announcer.announce(run, status="in_progress", progress=10)
    here.shows(run, 10)
    stack.stop_part("realtime")
    try:
        expect(here.page.locator("#connection")).to_contain_text("reconnecting")
        here.announcer.write(run, (("info", "said while nobody listened"),), progress=80)
    finally:
        stack.start_part("realtime")
    _ = here.live
    here.shows(run, 80)
    expect(here.run(run).get_by_role("log")).to_contain_text("said while nobody listened")
    here.announcer.announce(run, status="completed")
    here.shows(run, 100, "Completed")


def test_the_end_shows_the_topics_with_examples(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here = visit()
    run = here.start()
    topics_for(announcer, here.user_id, "Sourdough & baking")
    here.announcer.announce(run, status="completed")
    topic = here.page.locator(".topic")
    expect(topic.get_by_role("heading")).to_have_text("Sourdough & baking")
    expect(topic.locator(".count")).to_have_text("1 post")
    expect(topic.locator("blockquote")).to_have_text("Sourdough & baking")
    expect(topic.get_by_role("link")).to_have_attribute("rel", re.compile("noopener"))


def test_an_import_needs_a_session_a_plain_body_and_patience(
    site: DemoSite, stack: RunningStack, user: User
) -> None:
    token = {"Authorization": f"Bearer {user.token}"}
    ask = f"{site.url}/api/import"

    def refusal(answer: httpx.Response, status: int) -> str:
        assert answer.status_code == status
        line: str = answer.json()["error"]
        assert "\n" not in line
        return line

    assert "Sign in" in refusal(httpx.post(ask, json={"parallel": True}), 401)
    forged = {"Authorization": "Bearer a.b.c"}
    assert "not valid" in refusal(httpx.post(ask, json={"parallel": True}, headers=forged), 401)
    service = {"Authorization": f"Bearer {stack.service_key}"}
    refusal(httpx.post(ask, json={"parallel": True}, headers=service), 401)
    assert "parallel='yes'" in refusal(httpx.post(ask, json={"parallel": "yes"}, headers=token), 400)
    assert "not JSON" in refusal(httpx.post(ask, content=b"{", headers=token), 400)
    refusal(httpx.post(ask, content=b"x" * 5_000, headers=token), 413)
    for _ in range(3):
        assert httpx.post(ask, json={"parallel": False}, headers=token).status_code == 202
    late = httpx.post(ask, json={"parallel": False}, headers=token)
    assert "try again in" in refusal(late, 429)
    assert int(late.headers["Retry-After"]) > 0


def topics_for(announcer: Announcer, user_id: str, text: str) -> None:
    """One account, one post and one topic, all of this text."""
    account = {"user_id": user_id, "provider": "mastodon", "handle": "maya"}
    account_id = announcer.rest("social_accounts", account)[0]["id"]
    post = {"external_id": "1", "content": text, "url": "https://social.example/1"}
    announcer.rest("rpc/store_posts", {"p_account": account_id, "p_posts": [post], "p_cursor": None})
    post_id = announcer.read(f"posts?account_id=eq.{account_id}")[0]["id"]
    topic = {"label": text, "keywords": [text], "example_post_ids": [post_id], "members": {post_id: 1}}
    announcer.rest("rpc/replace_topics", {"p_user": user_id, "p_topics": [topic]})
