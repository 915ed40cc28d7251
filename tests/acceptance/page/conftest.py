"""A real headless browser on the demo's site, driven by Playwright.

Playwright because it speaks to the Chromium that the machine has (no driver of the same version, no
download of its own) and waits by itself for what it is told to expect.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bridge.local.running import RunningStack
from bridge.web.build import build
from tasks.demo.web import DemoSite, Start
from tests.acceptance.page.announcer import Announcer
from tests.acceptance.page.site import CHROMIUM_FLAGS, STARTS_OF_A_USER, serving
from tests.acceptance.page.visit import Started, Visit
from tests.waiting import PATIENCE

_NAMES = ("chromium", "chromium-browser", "google-chrome")

SiteFor = Callable[[Start], AbstractContextManager[DemoSite]]
Come = Callable[..., Visit]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium; ends with this package, since its event loop bears no other beside it."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on PATH ({', '.join(_NAMES)})")
    build()
    expect.set_options(timeout=PATIENCE * 1_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def started() -> Started:
    return {}


@pytest.fixture(scope="package")
def announcer(stack: RunningStack) -> Announcer:
    return Announcer(stack)


@pytest.fixture(scope="package")
def site_for(stack: RunningStack, started: Started) -> SiteFor:
    """A demo site that starts imports by the callable it is given."""

    async def seed(user_id: str) -> None:
        assert uuid.UUID(user_id)

    @contextmanager
    def serve(start: Start) -> Iterator[DemoSite]:
        def remembered(user_id: str, parallel: bool) -> str:
            run_id = start(user_id, parallel)
            started[run_id] = (user_id, parallel)
            return run_id

        def make_site() -> DemoSite:
            return DemoSite(stack.url, stack.anon_key, seed, remembered, starts_of_a_user=STARTS_OF_A_USER)

        build()
        with serving(make_site) as site:
            yield site

    return serve


@pytest.fixture(scope="package")
def site(site_for: SiteFor, announcer: Announcer) -> Iterator[DemoSite]:
    """A site without workers: what happens to a run is announced by the test."""
    with site_for(lambda user_id, _parallel: announcer.begin(user_id)) as serving_site:
        yield serving_site


@pytest.fixture
def come_to(browser: Browser, started: Started) -> Iterator[Come]:
    """A new visitor of a site, connected; an error of the page's own code fails the test."""
    troubles: list[str] = []
    with ExitStack() as contexts:

        def come(site: DemoSite, prepare: Callable[[Page], None] | None = None) -> Visit:
            context = contexts.enter_context(browser.new_context(locale="en-GB"))
            page = context.new_page()
            page.on("pageerror", lambda error: troubles.append(str(error)))
            if prepare is not None:
                prepare(page)
            page.goto(site.url)
            visit = Visit(page, started)
            visit.is_live()
            return visit

        yield come
    assert not troubles


@pytest.fixture
def visit(come_to: Come, site: DemoSite) -> Callable[[], Visit]:
    return lambda: come_to(site)
