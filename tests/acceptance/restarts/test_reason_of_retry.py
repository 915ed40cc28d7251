"""Why a run is tried again is told, however late the process that has asked for it goes on."""

from __future__ import annotations

from collections.abc import Callable

from bridge.local.running import RunningStack
from tests.acceptance.limits.fleet import Fleet
from tests.acceptance.restarts.conftest import Post
from tests.database import final_rows, logs
from tests.processes import Process
from tests.waiting import wait_until


def test_the_reason_of_a_retry_is_told_however_late_its_process_gets_to_it(
    fleet: Fleet, post: Post, stack: RunningStack, new_bridge: Callable[[], Process]
) -> None:
    new_bridge()
    fleet.start("prefork", 2)
    run = post.send("lingers_again", "on_retry")  # Celery calls on_retry right before the task_retry signal
    final_rows(stack, [run])
    fleet.go("on_retry")
    wait_until(lambda: [each["message"] for each in logs(stack, run)], "its reason is told", 15)
