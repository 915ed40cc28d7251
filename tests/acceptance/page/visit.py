"""A visitor of the page, as a person who looks at it."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.waiting import wait_until

Started = dict[str, tuple[str, bool]]
"""Imports that the page asked for: by run id, whose, and whether in parallel."""

_SESSION = "Object.entries(localStorage).find(([key]) => key.endsWith('-auth-token'))"


class Visit:
    """A user of their own in a browser context of their own; `started` is the site's."""

    def __init__(self, page: Page, started: Started) -> None:
        self.page, self.started = page, started

    @property
    def session(self) -> dict[str, Any]:
        """The session where supabase-js keeps it."""
        self.page.wait_for_function(_SESSION)
        found: dict[str, Any] = self.page.evaluate(f"JSON.parse({_SESSION}[1])")
        return found

    @session.setter
    def session(self, changed: dict[str, Any]) -> None:
        self.page.evaluate(
            f"changed => localStorage.setItem({_SESSION}[0], JSON.stringify(changed))", changed
        )

    @property
    def user_id(self) -> str:
        """Whom the page signed in."""
        user_id: str = self.session["user"]["id"]
        return user_id

    def is_live(self) -> None:
        """The page says that it is connected, or soon will."""
        expect(self.page.locator("#connection")).to_have_text("Live")

    def start(self) -> str:
        """Press the button; the run's id."""
        user_id, before = self.user_id, set(self.started)
        self.page.get_by_role("button", name="Import my socials").click()

        def mine() -> list[str]:
            return [run for run, (owner, _) in list(self.started.items()) if owner == user_id]

        return wait_until(lambda: [run for run in mine() if run not in before], "the import was asked for")[0]

    def run(self, run_id: str) -> Locator:
        """What stands on the page of a run."""
        return self.page.locator(f"[data-run='{run_id}']")

    def shows(self, run_id: str, percent: int, status: str | None = None, message: str | None = None) -> None:
        """The bar, and what stands around it, are right now or soon."""
        card = self.run(run_id)
        bar = card.get_by_role("progressbar")
        expect(bar).to_have_attribute("aria-valuenow", str(percent))
        if status is not None:
            expect(card.locator(".badge")).to_have_text(status)
        if message is not None:
            expect(card.locator(".message")).to_have_text(message)
