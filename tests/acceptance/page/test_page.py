"""The page in a real browser: what it shows of a user's runs, and what it never shows."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable

import jwt
import pytest
from playwright.sync_api import WebSocketRoute, expect

from bridge.local.running import RunningStack
from tasks.demo.web import DemoSite
from tests.acceptance.page.announcer import Announcer
from tests.acceptance.page.visit import Visit

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> \u202eevil"


def test_a_bar_moves_without_a_reload(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here = visit()
    run = here.start()
    here.shows(run, 0, "Queued")
    announcer.announce(
        run, (("info", "12 new posts"),), status="in_progress", progress=25, step="Mastodon of maya",
        message="Importing Mastodon (maya)...",
    )  # fmt: skip
    here.shows(run, 25, "Running", "Importing Mastodon (maya)...")
    expect(here.run(run).locator(".facts")).to_contain_text("Mastodon of maya")
    expect(here.run(run).get_by_role("log")).to_contain_text("12 new posts")
    announcer.announce(run, status="completed", message="1 of 1 accounts imported, 3 topics")
    here.shows(run, 100, "Completed", "1 of 1 accounts imported, 3 topics")


def test_a_reload_shows_the_same_user_and_the_same_runs(
    visit: Callable[[], Visit], announcer: Announcer
) -> None:
    here = visit()
    done, running = here.start(), here.start()
    announcer.announce(done, (("warning", "2 posts skipped"),), status="completed")
    announcer.announce(running, status="in_progress", progress=40, message="Importing Bluesky...")
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


def test_a_run_in_line_shows_its_place_and_why_it_waits(
    visit: Callable[[], Visit], announcer: Announcer
) -> None:
    here = visit()
    run = here.start()
    facts = here.run(run).locator(".facts")
    said = here.page.locator("#announcer")
    announcer.announce(
        run, status="waiting", wait_reason="5 of 5 imports are running", queue_position=3, step="Earlier"
    )
    here.shows(run, 0, "Waiting", "Waiting, number 3 in line")
    expect(facts).to_have_text("5 of 5 imports are running")
    expect(said).to_have_text(re.compile(": Waiting$"))
    announcer.announce(run, queue_position=1)
    here.shows(run, 0, "Waiting", "Waiting, number 1 in line")
    here.page.reload()
    here.shows(run, 0, "Waiting", "Waiting, number 1 in line")
    expect(facts).to_have_text("5 of 5 imports are running")
    announcer.announce(run, attempt=2, queue_position=None, wait_reason=HOSTILE, status="waiting")
    here.shows(run, 0, "Waiting", "Waiting for its turn")
    expect(facts).to_have_text(f"{HOSTILE} · attempt 2")
    announcer.announce(run, attempt=2, status="in_progress", progress=5, message="Importing Mastodon...")
    here.shows(run, 5, "Running", "Importing Mastodon...")
    expect(facts).not_to_contain_text("evil")
    assert "owned" not in here.page.title()


def test_the_choice_and_a_failure_reach_the_other_side(
    visit: Callable[[], Visit], announcer: Announcer
) -> None:
    here = visit()
    here.page.get_by_text("In parallel").click()
    run = here.start()
    assert here.started[run] == (here.user_id, True)
    announcer.announce(run, status="in_progress", attempt=2, max_attempts=3, progress=10)
    expect(here.run(run)).to_contain_text("attempt 2 of 3")
    announcer.announce(
        run, attempt=2, status="failed", error_code="token_refused",
        error_message="reddit/maya: the token was refused (401); connect the account again",
    )  # fmt: skip
    here.shows(run, 10, "Failed")
    expect(here.run(run).locator(".error")).to_contain_text("the token was refused")


def test_hostile_strings_are_shown_as_text(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here = visit()
    run = here.start()
    announcer.announce(
        run, (("error", HOSTILE),), status="in_progress", progress=5, message=HOSTILE, step=HOSTILE
    )
    here.shows(run, 5, message=HOSTILE)
    expect(here.run(run).get_by_role("log")).to_contain_text(HOSTILE)
    topics_for(announcer, here.user_id, HOSTILE)
    announcer.announce(run, status="failed", error_code="x", error_message=HOSTILE)
    expect(here.run(run).locator(".error")).to_have_text(HOSTILE)
    expect(here.page.locator(".topic h3")).to_have_text(HOSTILE)
    expect(here.page.locator(".topic blockquote")).to_have_text(HOSTILE)
    assert here.page.locator("main img, main script").count() == 0
    assert "owned" not in here.page.title()


def test_another_users_run_is_not_seen(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here, elsewhere = visit(), visit()
    assert here.user_id != elsewhere.user_id
    theirs, mine = elsewhere.start(), here.start()
    announcer.announce(theirs, status="in_progress", progress=70)
    announcer.announce(mine, status="in_progress", progress=30)
    elsewhere.shows(theirs, 70)
    here.shows(mine, 30)
    here.page.reload()
    here.shows(mine, 30)
    expect(here.page.locator(".run")).to_have_count(1)


def test_an_older_snapshot_never_replaces_a_newer_one(
    visit: Callable[[], Visit], announcer: Announcer
) -> None:
    here = visit()
    run = here.start()
    old = announcer.write(run, status="in_progress", progress=20)
    announcer.announce(run, progress=60)
    here.shows(run, 60)
    announcer.tell(old["channel"], old["snapshot"])
    marker = here.start()  # announced after the old one, so it is drawn after it
    here.shows(marker, 0)
    here.shows(run, 60)


def test_parts_tell_what_they_do_on_the_bar_of_the_whole(
    visit: Callable[[], Visit], announcer: Announcer
) -> None:
    here = visit()
    run = here.start()
    named = {"user_id": here.user_id, "root_id": run, "parent_id": run, "task": "part"}
    named |= {"channel": f"import-socials-{here.user_id}"}
    announcer.announce(run, status="in_progress")
    announcer.announce(
        str(uuid.uuid4()), (("info", "40 new posts"),), status="in_progress", progress=50,
        message="Importing Reddit (maya)...", **named,
    )  # fmt: skip
    here.shows(run, 50, "Running", "Importing Reddit (maya)...")
    expect(here.run(run).get_by_role("log")).to_contain_text("40 new posts")
    expect(here.page.locator(".run")).to_have_count(1)
    here.page.reload()
    expect(here.run(run).get_by_role("log")).to_contain_text("40 new posts")


def test_an_outage_of_realtime_is_told_and_the_bar_is_right_during_and_after_it(
    visit: Callable[[], Visit], announcer: Announcer, stack: RunningStack
) -> None:
    here = visit()
    run = here.start()
    announcer.announce(run, status="in_progress", progress=10)
    here.shows(run, 10)
    stack.stop_part("realtime")
    try:
        expect(here.page.locator("#connection")).to_contain_text("reconnecting")
        announcer.write(run, (("info", "said while nobody listened"),), progress=50)
        here.shows(run, 50)  # by the rows
        here.page.reload()
        here.shows(run, 50)
        expect(here.page.locator("#connection")).to_contain_text("reconnecting")
        announcer.write(run, progress=80)
    finally:
        stack.start_part("realtime")
    here.is_live()
    here.shows(run, 80)
    expect(here.run(run).get_by_role("log")).to_contain_text("said while nobody listened")
    announcer.announce(run, status="completed")
    here.shows(run, 100, "Completed")


def test_the_end_shows_the_topics_with_examples(visit: Callable[[], Visit], announcer: Announcer) -> None:
    here = visit()
    run = here.start()
    topics_for(announcer, here.user_id, "Sourdough & baking")
    announcer.announce(run, status="completed")
    topic = here.page.locator(".topic")
    expect(topic.get_by_role("heading")).to_have_text("Sourdough & baking")
    expect(topic.locator(".count")).to_have_text("1 post")
    expect(topic.locator("blockquote")).to_have_text("Sourdough & baking")
    expect(topic.get_by_role("link")).to_have_attribute("rel", re.compile("noopener"))


def test_a_visitor_who_comes_back_with_an_expired_token_is_the_same_user(
    visit: Callable[[], Visit], site: DemoSite, announcer: Announcer, stack: RunningStack
) -> None:
    here = visit()
    run, user_id, session = here.start(), here.user_id, here.session
    past = int(time.time()) - 60
    claims = jwt.decode(session["access_token"], options={"verify_signature": False}) | {"exp": past}
    here.page.goto(f"{site.url}/icon.svg")  # of the same origin, and without the page's code
    here.session = session | {
        "access_token": jwt.encode(claims, stack.jwt_secret, "HS256"),
        "expires_at": past,
    }
    here.page.goto(site.url)
    here.is_live()
    assert here.user_id == user_id
    assert here.session["expires_at"] > time.time()
    announcer.announce(run, status="in_progress", progress=45)
    here.shows(run, 45, "Running")


def test_a_channel_that_the_server_closes_is_joined_again(
    come_to: Callable[..., Visit], site: DemoSite, announcer: Announcer
) -> None:
    sockets: list[WebSocketRoute] = []
    joins: list[list[object]] = []

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        sockets.append(socket)

        def to_server(frame: str | bytes) -> None:
            if isinstance(frame, str) and "phx_join" in frame:
                joins.append(json.loads(frame))
            server.send(frame)

        socket.on_message(to_server)

    here = come_to(site, lambda page: page.route_web_socket(re.compile("/realtime/"), between))
    run = here.start()
    here.shows(run, 0, "Queued")
    join_ref, _, topic, *_ = joins[0]
    sockets[0].send(json.dumps([join_ref, join_ref, topic, "phx_close", {}]))
    expect(here.page.locator("#connection")).to_contain_text("reconnecting")
    announcer.write(run, status="in_progress", progress=35)
    here.is_live()
    here.shows(run, 35)
    announcer.announce(run, status="completed")
    here.shows(run, 100)
    assert len(joins) == 2


def topics_for(announcer: Announcer, user_id: str, text: str) -> None:
    """One account, one post and one topic, all of this text."""
    account = {"user_id": user_id, "provider": "mastodon", "handle": "maya"}
    account_id = announcer.rest("social_accounts", account)[0]["id"]
    post = {"external_id": "1", "content": text, "url": "https://social.example/1"}
    announcer.rest("rpc/store_posts", {"p_account": account_id, "p_posts": [post], "p_cursor": None})
    post_id = announcer.read(f"posts?account_id=eq.{account_id}")[0]["id"]
    topic = {"label": text, "keywords": [text], "example_post_ids": [post_id], "members": {post_id: 1}}
    announcer.rest("rpc/replace_topics", {"p_user": user_id, "p_topics": [topic]})
