"""A run that its limits cannot be told for fails with a clear code: it is never stuck, and holds nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings, LimitSettings
from tests.acceptance.limits_pools.conftest import APP, Fleet
from tests.acceptance.limits_pools.history import History
from tests.conftest import User
from tests.database import final_rows, rows
from tests.processes import worker
from tests.waiting import wait_until

Case = tuple[str, tuple[Any, ...], dict[str, Any], str, str]

CASES: dict[str, Case] = {
    "a key function that raises": (
        "badly_keyed", ("a",), {}, "limit_key", "raising failed with RuntimeError",
    ),
    "no argument for the key": ("both", (), {}, "limit_key", "there is no argument customer"),
    "one limit can be told, the other not": ("keyed_second", (), {}, "limit_key", "no argument customer"),
    "more arguments than the function takes": (
        "both", ("a", 0.0, None, "too many"), {}, "limit_key", "there is no argument customer",
    ),
    "units above what there ever are": ("weighed", (11,), {}, "limit_units", "11, above the 10 per"),
    "units that are no number": ("weighed", ("many",), {}, "limit_units", "gave a str"),
    "units below nothing": ("weighed", (-1,), {}, "limit_units", "gave -1"),
    "units that raise": ("weighed", (), {}, "limit_units", "there is no argument units"),
}  # fmt: skip


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_run_whose_limits_cannot_be_told_fails_with_a_clear_code(
    pool: str, fleet: Fleet, stack: RunningStack, history: History
) -> None:
    send, queue = fleet.app.app.send_task, fleet.queue(pool)
    runs = {
        name: send(f"{APP}.{task}", args, kwargs, queue=queue).id
        for name, (task, args, kwargs, _, _) in CASES.items()
    }
    after = send(f"{APP}.free", queue=queue).id
    found = final_rows(stack, [*runs.values(), after])
    assert found[after]["status"] == "completed", "the worker goes on"
    for name, run in runs.items():
        row, (*_, code, text) = found[run], CASES[name]
        assert (row["status"], row["error_code"]) == ("failed", code), name
        assert text in row["error_message"], name
        assert "hunter2" not in row["error_message"], "what an exception says stays inside"
    assert history.starts(list(runs.values())) == []


def test_arguments_that_do_not_fit_fail_as_they_do_without_limits(fleet: Fleet, stack: RunningStack) -> None:
    send = fleet.app.app.send_task
    runs = [
        send(f"{APP}.both", (), {"customer": "a", "unheard_of": 1}).id,
        send(f"{APP}.three", (), {"unheard_of": 1}).id,
        send(f"{APP}.three", (0.0, "label", None, "too many")).id,
    ]
    found = final_rows(stack, runs)
    assert {(row["status"], row["error_code"]) for row in found.values()} == {("failed", "error")}
    assert {row["error_message"] for row in found.values()} == {"The task failed (TypeError)."}


def test_an_unusable_owner_waits_like_others_and_fails_when_it_starts(
    fleet: Fleet, stack: RunningStack, history: History, user: User, door: Callable[[str], Path]
) -> None:
    gate = door("gate")
    running = fleet.app.owned.delay(user.id, str(gate)).id
    history.wait_for_starts([running])
    bad = fleet.app.app.send_task(f"{APP}.owned", ("nobody",), queue=fleet.queue("threads")).id
    good = fleet.app.owned.apply_async((user.id,), queue=fleet.queue("threads")).id
    wait_until(lambda: rows(stack, [good]).get(good, {}).get("status") == "waiting", "those behind wait")
    gate.touch()
    found = final_rows(stack, [bad, good])
    assert (found[bad]["status"], found[bad]["error_code"]) == ("failed", "bad_arguments")
    assert found[good]["status"] == "completed"
    assert history.starts([bad]) == []


def test_a_worker_that_cannot_keep_limits_does_not_start(settings: BridgeSettings, tmp_path: Path) -> None:
    """Celery logs what fails at a worker's start, and starts it all the same: with no limits at all."""
    broken = settings.model_copy(update={"limits": LimitSettings(redis_url="nonsense://nowhere")})
    with pytest.raises(AssertionError, match="ended with 1"), worker(broken, tmp_path, APP, "solo"):
        pass
