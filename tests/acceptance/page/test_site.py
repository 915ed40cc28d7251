"""What the demo's server answers to requests that the page would not send."""

from __future__ import annotations

import httpx

from bridge.local.running import RunningStack
from tasks.demo.web import DemoSite
from tests.acceptance.page.site import STARTS_OF_A_USER
from tests.conftest import User


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
    for _ in range(STARTS_OF_A_USER):
        assert httpx.post(ask, json={"parallel": False}, headers=token).status_code == 202
    late = httpx.post(ask, json={"parallel": False}, headers=token)
    assert "try again in" in refusal(late, 429)
    assert int(late.headers["Retry-After"]) > 0


def test_the_browser_is_told_to_run_our_files_only_and_to_talk_to_supabase_only(
    site: DemoSite, stack: RunningStack
) -> None:
    page = httpx.get(site.url)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert f"connect-src 'self' {stack.url} {stack.url.replace('http', 'ws', 1)};" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{site.url}/config.json").json() == {
        "supabaseUrl": stack.url,
        "anonKey": stack.anon_key,
    }
    missing = httpx.get(f"{site.url}/no/such/file")
    assert missing.status_code == 404
    assert missing.json() == {"error": "Not Found."}
