"""What the reaper tells of a run, once it is sure of what is wrong with its row."""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from uuid import UUID

from bridge import lifecycle
from bridge.events import LogLine, Patch
from bridge.extension import Bridge
from bridge.lifecycle import MessageLost, WorkersLost
from bridge.limits.reasons import reason
from bridge.reaper.quiet import QuietRun
from bridge.reaper.verdicts import Verdict
from bridge.reaper.whereabouts import Lookout
from bridge.worker.stored import stored

log = logging.getLogger(__name__)

_DERIVED: Final = 5  # version of a UUID that stands for a task id of another form, see `events.run_uuid`


class Mending:
    """Tells through the outbox, in order with everything else that is told of the run."""

    def __init__(self, bridge: Bridge, lookout: Lookout) -> None:
        self._bridge, self._lookout = bridge, lookout

    def comes_back(self, run: QuietRun) -> bool:
        """Whether the broker gives the run's message back when its worker is lost."""
        app = self._bridge.app
        task = app.tasks.get(run.task)
        return bool(app.conf.task_acks_late if task is None else task.acks_late)

    def mend(self, run: QuietRun, verdict: Verdict) -> None:
        """Tell what is so, unless the row has moved on.

        Raises:
            OutboxUnavailable
        """
        fields, logs = self._truth(run, verdict)
        patch = Patch(run.run_id, run.attempt, time.time(), fields, logs, existing=True, expected=run.version)
        self._bridge.outbox.append([(run.root_id, patch)])

    def _truth(self, run: QuietRun, verdict: Verdict) -> tuple[dict[str, Any], list[LogLine]]:
        if verdict is Verdict.QUEUED:
            return lifecycle.queued_again(), []
        if verdict is Verdict.WAITING:
            gate, position = self._lookout.line_of(run.run_id) or ("", 1)
            return lifecycle.waiting(reason(gate) if gate else "Waiting.", position), []
        ended = self._end_in_results(run)
        if ended is not None:
            return ended, []
        error = WorkersLost() if verdict is Verdict.WORKER_LOST else MessageLost()
        self._fail_in_results(run, error)
        return lifecycle.failed(error, expose=False), [LogLine("error", str(error), time.time())]

    def _end_in_results(self, run: QuietRun) -> dict[str, Any] | None:
        """The end of the run as the result backend knows it: only the news of it was lost."""
        if _is_derived(run):
            return None
        meta = stored(self._bridge.app.backend, run.run_id)
        if meta is None:
            return None
        declared = self._bridge.declaration(self._bridge.app.tasks.get(run.task))
        return lifecycle.stored(meta, declared.public_result, self._bridge.settings.expose_errors)

    def _fail_in_results(self, run: QuietRun, error: Exception) -> None:
        """Let whoever waits for the result learn of it."""
        if _is_derived(run):
            return
        try:
            self._bridge.app.backend.mark_as_failure(run.run_id, error)
        except Exception as failure:
            log.warning(
                "the result backend took no failure of run %s (%s)", run.run_id, type(failure).__name__
            )


def _is_derived(run: QuietRun) -> bool:
    return UUID(run.run_id).version == _DERIVED
