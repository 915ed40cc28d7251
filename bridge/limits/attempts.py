"""Attempts: which one a message is for, by what name limits know it, how many died with their workers."""

from __future__ import annotations

from typing import Any

from bridge.events import UUID_TEXT, run_uuid
from bridge.header import HEADER, counted, earlier_in, publication_in
from bridge.limits.gates import quoted


def attempt_of(headers: Any) -> int:
    """The number of the attempt that a message is for."""
    return earlier_in(headers) + counted(headers.get("retries")) + 1


def member_of(headers: Any) -> str:
    """One attempt of a run, as the limits know it: `<task id>:<attempt>:<nesting of replace()>`."""
    nesting = counted(headers.get("replaced_task_nesting"))
    task_id = str(headers["id"])
    quoted_id = task_id if UUID_TEXT.fullmatch(task_id) else quoted(task_id)
    return f"{quoted_id}:{attempt_of(headers)}:{nesting}"


def member_held_by(holder: str) -> str:
    """The attempt of a run that holds slots under this name."""
    return holder.rpartition("#")[0]


def task_id_of(member: str) -> str:
    """The task id of an attempt, as it was quoted."""
    return member.rsplit(":", 2)[0]


def meta_of(request: Any, is_mirrored: bool) -> str:
    """What reports of an attempt need that are made by others than its worker."""
    run_id = run_uuid(request.id)
    root = run_uuid(request.root_id) if request.root_id else run_id
    n, publication = attempt_of(request.request_dict), publication_in(request.request_dict)
    mirror = "true" if is_mirrored else "false"
    return f'{{"id":"{run_id}","root":"{root}","n":{n},"mirror":{mirror},"p":"{publication}"}}'


def note(request: Any, **values: Any) -> None:
    """Tell the process that executes the run, in the header of its message."""
    header = request.request_dict.get(HEADER)
    request.request_dict[HEADER] = {**(header if isinstance(header, dict) else {}), **values}


def count_deaths(request: Any, deaths: int) -> bool:
    """Number the attempt by those that died with their workers; returns whether they used all up."""
    headers, most = request.request_dict, request.task.max_retries
    # A replaced run has tries of its own; one that is acked early comes back only if it never began.
    used_up = most is not None and request.task.acks_late and counted(headers.get("retries")) + deaths > most
    # Then it is told as of the last attempt that there was.
    note(request, earlier=earlier_in(headers) + deaths - (1 if used_up else 0))
    return bool(used_up)
