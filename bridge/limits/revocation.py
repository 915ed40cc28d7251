"""Celery's `revoke` command, which every worker hears: it ends runs that wait, and none that others execute.

A worker that does not know a run takes it for one that nobody has begun, stores that it is revoked, and who
waits for its result is told so, while another worker executes it to its end.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any
from urllib.parse import unquote

from celery import states
from celery.worker.control import Panel
from redis import RedisError

from bridge.limits.attempts import task_id_of
from bridge.limits.endings import Endings
from bridge.limits.link import Link


def watch_revocations(endings: Endings, link: Link) -> None:
    """Have the command leave to their workers what they execute, and end what waits."""
    revoke = Panel.data["revoke"]

    def revoking(state: Any, task_id: Any, *args: Any, **kwargs: Any) -> Any:
        ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
        try:
            return revoke(_Seen(state, _executing(link, ids)), ids, *args, **kwargs)
        finally:  # a pool that can stop nothing raises
            endings.withdraw(ids)

    Panel.data["revoke"] = revoking


def _executing(link: Link, ids: list[str]) -> Set[str]:
    """Those that some worker executes; while Redis is away, when none can be told apart, all of them."""
    try:
        return {unquote(task_id_of(holder)) for holder in link.scripts.executing()}.intersection(ids)
    except RedisError as error:
        link.lost(error)
        return set(ids)


class _Seen:
    """The state of a worker's remote control, as Celery's command sees it, which asks it for two things."""

    def __init__(self, state: Any, executing: Set[str]) -> None:
        self.consumer = state.consumer
        self.app = _App(_Backend(state.app.backend, executing))


class _App:
    def __init__(self, backend: _Backend) -> None:
        self.backend = backend


class _Backend:
    """The result backend, as the command asks it for runs that the worker does not know."""

    def __init__(self, backend: Any, executing: Set[str]) -> None:
        self._backend, self._executing = backend, executing
        self.mark_as_revoked = backend.mark_as_revoked

    def get_state(self, task_id: str) -> str:
        """Celery leaves a run to the worker that has started it, if it was stored that one has."""
        return states.STARTED if task_id in self._executing else str(self._backend.get_state(task_id))
