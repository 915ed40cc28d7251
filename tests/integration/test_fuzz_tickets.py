"""Whatever a browser sends as a ticket is kept as it was sent, or refused with a code; nothing in between."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.local.running import RunningStack
from tests.conftest import User

TEXTS = ["\x00", "\ud800", "'; drop table background_jobs; --", "\\u0000", "{}", "x" * 300, "\u202e", "NaN"]
texts = st.sampled_from(TEXTS) | st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
tickets = st.fixed_dictionaries(
    {"task": st.just("tasks.a") | values},
    optional={
        "args": st.dictionaries(texts, values, max_size=3) | values,
        "run_at": st.just("2030-01-01T00:00:00Z") | values,
        "idempotency_key": texts | values,
        "status": st.sampled_from(["pending", "processing", "completed"]) | values,
        "id": values,
        "user_id": values,
        "priority": values,
        "claimed_by": texts,
        "error": texts,
    },
)


@pytest.fixture(scope="module")
def rest(stack: RunningStack) -> httpx.Client:
    return httpx.Client(base_url=f"{stack.url}/rest/v1", timeout=30)


@given(ticket=tickets)
@example(ticket={"task": "tasks.a", "args": {"a": "x" * 70_000}})
@example(ticket={"task": "tasks.a", "args": {"a": 10**400}})
@example(ticket={"task": "tasks.a", "args": json.loads('{"a":' * 300 + "1" + "}" * 300)})
@example(ticket={"task": "x" * 201})
@settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_a_ticket_is_kept_as_it_was_sent_or_refused(
    stack: RunningStack, rest: httpx.Client, user: User, ticket: dict[str, Any]
) -> None:
    headers = {
        "apikey": stack.anon_key, "authorization": f"Bearer {user.token}",
        "content-type": "application/json", "prefer": "return=representation",
    }  # fmt: skip
    answer = rest.post("/background_jobs", content=json.dumps(ticket), headers=headers)
    if answer.status_code == 201:
        [row] = answer.json()
        assert row["status"] == "pending"
        assert row["user_id"] == user.id
        assert (row["claimed_by"], row["error"], row["priority"]) == (None, None, 0)
        assert not {"id", "claimed_by", "error", "priority"} & set(ticket)
        assert row["args"] == ticket.get("args", {})
        assert row["task"] == ticket["task"] or not isinstance(ticket["task"], str)  # made a text
    else:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["code"], answer.text
