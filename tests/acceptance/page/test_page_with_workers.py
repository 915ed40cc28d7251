"""The page with a real worker and a real bridge behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from playwright.sync_api import expect

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.page.visit import Visit
from tests.processes import bridge, worker

pytestmark = pytest.mark.browser


def test_real_runs_move_their_bars_to_the_end(
    site_for: Callable[..., object],
    come_to: Callable[..., Visit],
    app: ModuleType,
    settings: BridgeSettings,
    stack: RunningStack,
    tmp_path: Path,
) -> None:
    def start(user_id: str, parallel: bool) -> str:
        task = app.in_parallel if parallel else app.fine
        return str(task.delay(user_id).id)

    with site_for(start) as site, worker(settings, tmp_path), bridge(settings, tmp_path):
        here = come_to(site)
        run = here.start()
        here.shows(run, 100, "Completed")
        here.run(run).get_by_text("half way, at 2").wait_for()
        here.page.get_by_text("In parallel").click()
        whole = here.start()
        here.shows(whole, 100, "Completed")
        expect(here.page.locator(".run")).to_have_count(2)
        token = {"apikey": stack.anon_key, "Authorization": f"Bearer {here.session['access_token']}"}
        rows = httpx.get(f"{stack.url}/rest/v1/processing_jobs?parent_id=is.null", headers=token).json()
        assert {row["id"] for row in rows} == {run, whole}
