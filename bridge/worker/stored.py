"""What the result backend knows of a run whose process can tell nothing any more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from celery import states

log = logging.getLogger(__name__)

_REPLIES: Final = "rpc://"
"""Results that are messages to whoever waits for them: looking would take them away."""


def stored_end(request: Any) -> Mapping[str, Any] | None:
    """The end of a run (a worker's request) that its process had stored; None where there is none.

    The result backend keeps a success, whatever is stored after it, and anything else it does not.
    """
    backend = request.task.backend
    if request.ignore_result or backend.as_uri() == _REPLIES:
        return None
    meta = stored(backend, request.id)
    return meta if meta is not None and meta.get("status") in (states.SUCCESS, states.FAILURE) else None


def stored(backend: Any, task_id: str) -> Mapping[str, Any] | None:
    """What a result backend has of a run; None where it does not answer."""
    try:
        meta: Mapping[str, Any] = backend.get_task_meta(task_id, cache=False)
    except Exception as error:
        log.info("the result backend does not tell of run %s (%s)", task_id, type(error).__name__)
        return None
    return meta
