"""What the life of a Celery run means for its row: pure builders of fields, one for each turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import states
from celery.exceptions import Ignore, Reject

from bridge.errors import PublicError
from bridge.events import DEEPEST_VALUE, is_deeper, run_uuid
from bridge.header import counted
from bridge.text import public, public_json, shorten

RESULT_LIMIT: Final = 100_000


class NoSuchTask(PublicError):
    """No worker of this queue knows a task of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"No worker knows the task {shorten(name, 100)}.", code="unknown_task")


class UnreadableMessage(PublicError):
    """The message is none that Celery can read."""

    def __init__(self) -> None:
        super().__init__("The task's message could not be read.", code="unreadable_message")


class PublishFailed(PublicError):
    """The broker took no message."""

    def __init__(self) -> None:
        super().__init__("The task could not be queued.", code="publish_failed")


class WorkersLost(PublicError):
    """Each attempt of the run ended with the death of its worker."""

    def __init__(self) -> None:
        super().__init__("The worker that ran the task was lost.", code="worker_lost")


class MessageLost(PublicError):
    """The run was to start, and nothing is left that could start it."""

    def __init__(self) -> None:
        super().__init__("The task was lost before it could start; please start it again.", code="stalled")


class UpstreamFailed(PublicError):
    """A run that had to succeed before this one did not."""

    def __init__(self) -> None:
        super().__init__("A task that this one waits for did not succeed.", code="upstream_failed")


_CODES: Final[tuple[tuple[type[BaseException], str, str], ...]] = (
    (SoftTimeLimitExceeded, "timeout", "The task took longer than its time limit."),
    (TimeLimitExceeded, "timeout", "The task took longer than its time limit."),
    (WorkerLostError, "worker_lost", "The worker process that ran the task was lost."),
    (MemoryError, "out_of_memory", "The task ran out of memory."),
    (Reject, "rejected", "The task rejected its message."),
)

_ENDED_BY_LIMITS: Final = {
    "dropped": ("dropped", "The run was not started: as many as allowed were going on."),
    "superseded": ("superseded", "A newer run has taken this one's place."),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same over a run's life; first writer wins on the row."""

    run_id: str
    root_id: str
    task: str
    queue: str | None = None
    owner: str | None = None
    channel: str | None = None
    parent_id: str | None = None
    max_attempts: int | None = None
    input_file: str | None = None
    metadata: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    earlier: int = 0

    def attempt(self, retries: object) -> int:
        """The number of an attempt, from Celery's count of retries."""
        return self.earlier + counted(retries) + 1

    def fields(self) -> dict[str, Any]:
        columns = {
            "task": self.task,
            "queue": self.queue,
            "user_id": self.owner,
            "channel": self.channel,
            "parent_id": self.parent_id,
            "root_id": self.root_id,
            "max_attempts": self.max_attempts,
            "input_file": self.input_file,
            "metadata": self.metadata,
            "tags": list(self.tags) or None,
        }
        return {name: value for name, value in columns.items() if value is not None}

    def header(self) -> dict[str, Any]:
        """The part of the message headers that hands this identity to the worker."""
        values = {
            "user_id": self.owner,
            "channel": self.channel,
            "parent": self.parent_id,
            "earlier": self.earlier or None,
        }
        return {name: value for name, value in values.items() if value is not None}


def published(identity: Identity, retries: object, eta: object) -> dict[str, Any]:
    """Queued, or scheduled for a later time, or on its way to another attempt."""
    if counted(retries):
        return {"status": "retrying", "state": "RETRY", **identity.fields()}
    return {"status": "scheduled" if eta else "queued", "state": "PENDING", **identity.fields()}


def queued_again() -> dict[str, Any]:
    """In its queue once more, without another attempt having been asked for."""
    return {"status": "queued", "state": "PENDING"}


def waiting(reason: str, position: int) -> dict[str, Any]:
    return {"status": "waiting", "state": "PENDING", "wait_reason": reason, "queue_position": position}


def started(identity: Identity, at: float) -> dict[str, Any]:
    return {"status": "in_progress", "state": "STARTED", "started_at": _iso(at), **identity.fields()}


def completed(result: Any, show_result: bool, state: str = "SUCCESS") -> dict[str, Any]:
    fields: dict[str, Any] = {"status": "completed", "state": state, "progress": 100}
    if show_result:
        fields["result"] = _public_result(result)
    return fields


def failed(error: BaseException, expose: bool) -> dict[str, Any]:
    code, message = describe(error, expose)
    return {"status": "failed", "state": "FAILURE", "error_code": code, "error_message": message}


def revoked(expired: bool, terminated: bool, because: str | None = None) -> dict[str, Any]:
    if expired:
        message = "The run was not started before it expired."
        return {"status": "expired", "state": "REVOKED", "error_code": "expired", "error_message": message}
    message = "The run was stopped." if terminated else "The run was cancelled before it started."
    code, message = _ENDED_BY_LIMITS.get(because or "", ("cancelled", message))
    return {"status": "cancelled", "state": "REVOKED", "error_code": code, "error_message": message}


def stored(meta: Mapping[str, Any], show_result: bool, expose: bool) -> dict[str, Any] | None:
    """The end of a run as Celery's result backend has it; None where that knows of no end."""
    state, result = meta.get("status"), meta.get("result")
    if state == states.SUCCESS:
        return completed(result, show_result)
    if state == states.REVOKED:
        return revoked(expired=False, terminated=True)
    if state == states.FAILURE and isinstance(result, BaseException):
        return failed(result, expose)
    return None


def describe(error: BaseException, expose: bool) -> tuple[str, str]:
    """(code, message) that a user may see; the text of an exception stays inside unless it is public.

    >>> describe(KeyError("secret"), expose=False)
    ('error', 'The task failed (KeyError).')
    """
    if isinstance(error, PublicError):
        return error.code, shorten(public(str(error)))
    for kind, code, message in _CODES:
        if isinstance(error, kind):
            return code, message
    if isinstance(error, Ignore):
        return "ignored", "The task asked to be ignored."
    if expose:
        return "error", shorten(public(f"{type(error).__name__}: {error}"))
    return "error", f"The task failed ({type(error).__name__})."


def members_waiting_for(request: Any) -> list[str]:
    """Row ids that never run when this run does not succeed: its chord's body, its chain's rest.

    `request` is a task context, or the dict that it is made of.
    """
    signatures = [chord] if (chord := request.get("chord")) else []
    signatures.extend(request.get("chain") or [])
    ids = []
    for signature in signatures:
        options = signature.get("options") or {}
        if options.get("task_id"):
            ids.append(run_uuid(options["task_id"]))
        if signature.get("subtask_type") == "chord":
            ids.extend(_body_ids(signature))
    return ids


def _body_ids(signature: Mapping[str, Any]) -> list[str]:
    body = (signature.get("kwargs") or {}).get("body") or {}
    task_id = (body.get("options") or {}).get("task_id")
    return [run_uuid(task_id)] if task_id else []


def _public_result(result: Any) -> Any:
    try:
        raw = json.dumps(result, allow_nan=False)
        if len(raw) <= RESULT_LIMIT:
            parsed = json.loads(raw)
            if is_deeper(parsed, DEEPEST_VALUE):
                return {"omitted": f"the result is nested deeper than {DEEPEST_VALUE} levels"}
            return public_json(parsed)
    except (TypeError, ValueError, RecursionError):
        return {"omitted": "the result is no JSON"}
    return {"omitted": f"the result is {len(raw)} bytes, at most {RESULT_LIMIT} are kept"}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
