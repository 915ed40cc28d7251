"""What a user would write, checked by mypy --strict; never run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, assert_type

from celery import Celery

from bridge import (
    ArgumentError,
    Bridge,
    BridgeSettings,
    Limit,
    PublicError,
    Rate,
    Run,
    TaskcastError,
    current_run,
)
from bridge.task import BridgeTask
from bridge.testing import MemoryOutbox

app = Celery("tasks")
bridge = Bridge(app, BridgeSettings())
Bridge(Celery("tests"), outbox=MemoryOutbox())


@app.task(bind=True, concurrency=5, channel="import-socials-{user_id}")
def import_socials(self: BridgeTask, user_id: str) -> None:
    self.progress(3, 10, "Importing mastodon...")
    self.progress(message="Importing bluesky...")
    self.progress(0.5)
    for post in self.track(["a", "b"], "Importing"):
        assert_type(post, str)
    self.step("Extracting topics")
    self.log("12 posts skipped", "warning", skipped=12)
    self.result_url("https://files.example/result.json")
    self.checkpoint({"cursor": 5})
    assert_type(self.last_checkpoint, Any)
    raise PublicError("This account has no public posts.", code="empty_account")


def tokens_of(texts: list[str]) -> int:
    return sum(map(len, texts)) // 4


@app.task(
    concurrency=[Limit(5), Limit(1, key="user_id"), Limit(20, name="openai")],
    rate=Rate(100, per=timedelta(minutes=1), name="openai", units=lambda batch: len(batch)),
    on_limit="wait",
    public_result=True,
)
def embed(user_id: str, batch: list[str]) -> int:
    return helper(batch)


@app.task(
    concurrency=Limit(1, key=lambda user_id, source: (user_id, source), name="sources"),
    rate=[
        Rate(300, per=timedelta(minutes=5), key="source", name="providers"),
        Rate(2_000_000, per=timedelta(minutes=1), name="tokens", units=tokens_of),
    ],
    on_limit="drop",
)
def fetch(user_id: str, source: str, texts: list[str]) -> None: ...


def helper(items: Iterable[str]) -> int:
    """Reaches its run without being handed the task."""
    run = current_run()
    assert_type(run, Run | None)
    if run is not None:
        run.progress(1, 2, "half way")
        items = run.track(items, total=5)
    return sum(len(item) for item in items)


def dispatch(user_id: str) -> str | None:
    try:
        return str(import_socials.delay(user_id).id)
    except ArgumentError as error:
        assert_type(error.field, str)
    except TaskcastError:
        pass
    return None


def mistakes(task: BridgeTask, run: Run) -> None:
    """Each of these is an error to the checker; an ignore that is not needed would be one, too."""
    task.progress("3", 10)  # type: ignore[arg-type]
    task.log(5)  # type: ignore[arg-type]
    run.step()  # type: ignore[call-arg]
    run.progress(1, 2, message=3)  # type: ignore[arg-type]
    Limit("5")  # type: ignore[arg-type]
    Rate(100, per=60)  # type: ignore[arg-type]
    Limit(1, key=5)  # type: ignore[arg-type]
    Limit(1, name=5)  # type: ignore[arg-type]
    Rate(100, per=timedelta(minutes=1), units=5)  # type: ignore[arg-type]
