"""All Celery signals: each becomes a patch of the run it tells of.

Ways out of a run that send no signal are told by `bridge.worker.request`; a worker that is gone as a whole
can tell nothing; its runs are for those that are left, and for `bridge.reaper`.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from bridge import lifecycle
from bridge.current import current_run, enter
from bridge.errors import ArgumentError
from bridge.events import LogLine, Patch, run_uuid
from bridge.header import HEADER
from bridge.limits.gatekeeper import Gatekeeper, open_when_ready
from bridge.limits.reasons import reason
from bridge.run import Run
from bridge.sending import from_now, next_attempt, sender_of
from bridge.worker.pool_process import let_runs_end
from bridge.worker.request import ended_because, goes_on_after_report, reported_request
from bridge.worker.results import store_packed

if TYPE_CHECKING:
    from bridge.extension import Bridge

log = logging.getLogger(__name__)

_HOUSEKEEPING = frozenset({"celery.backend_cleanup", "celery.chord_unlock"})


class Signals:
    """The receivers of one `Bridge`; Celery's signals are process-wide, so each looks whose it is."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._receivers = {
            signals.before_task_publish: self.before_task_publish,
            signals.task_received: self.task_received,
            signals.task_prerun: self.task_prerun,
            signals.task_success: self.task_success,
            signals.task_failure: self.task_failure,
            signals.task_retry: self.task_retry,
            signals.task_internal_error: self.task_internal_error,
            signals.task_postrun: self.task_postrun,
            signals.task_revoked: self.task_revoked,
            signals.task_unknown: self.task_unknown,
            signals.task_rejected: self.task_rejected,
            signals.worker_init: self.worker_init,
            signals.worker_process_init: self.worker_process_init,
            signals.worker_process_shutdown: self.process_shutdown,
            signals.worker_shutdown: self.worker_shutdown,
        }
        for signal, receiver in self._receivers.items():
            signal.connect(receiver, weak=False)

    def disconnect(self) -> None:
        """Stop listening."""
        for signal, receiver in self._receivers.items():
            signal.disconnect(receiver)

    # In the process that publishes

    def before_task_publish(
        self, sender: str, headers: dict[str, Any], body: Any, routing_key: str, **_: Any
    ) -> None:
        if not self._is_ours(sender) or "id" not in headers:
            return  # without an id in its headers it is of protocol 1; the worker tells of it
        given = headers.get(HEADER)
        header = {**(given if isinstance(given, dict) else {}), "publication": secrets.token_hex(8)}
        headers[HEADER] = header
        self._bridge.clock.correct(headers, from_now())
        if not self._mirrored(sender):
            return
        published = self._bridge.publication(sender, headers, body, routing_key)
        identity, retries = published.identity, headers.get("retries")
        header.update(identity.header())
        fields = lifecycle.published(identity, retries, headers.get("eta"))
        why, logs = self._why_again(identity.run_id)
        self._append(identity, retries, {**fields, **why}, logs, fresh=True, parts=published.parts)

    # In the worker's main process

    def worker_init(self, sender: Any, **_: Any) -> None:
        """Before the pool's children are forked, so that they inherit what tells that they live."""
        if sender.app is self._bridge.app:
            try:
                self._bridge.gatekeeper = Gatekeeper(self._bridge, sender.hostname)
            except Exception as error:  # Celery would log it, and start a worker that limits nothing
                log.critical("no limits can be kept here, so this worker does not start", exc_info=error)
                raise SystemExit(1) from error
            open_when_ready(sender, self._bridge.gatekeeper)

    def worker_process_init(self, **_: Any) -> None:
        let_runs_end()
        if self._bridge.gatekeeper is not None:
            self._bridge.gatekeeper.in_pool_process()
            store_packed(self._bridge.app.backend)

    def worker_shutdown(self, sender: Any, **_: Any) -> None:
        if sender.app is self._bridge.app and self._bridge.gatekeeper is not None:
            self._bridge.gatekeeper.close()
        self.process_shutdown()

    def task_received(self, sender: Any, request: Any, **_: Any) -> None:
        """A message from a publisher without the bridge: its run becomes visible here."""
        if request.app is not self._bridge.app or HEADER in request.request_dict:
            return
        if self._mirrored(request.task_name):
            identity = self._bridge.identity_of(
                request.task, request.request_dict, request.args, request.kwargs
            )
            retries = request.request_dict.get("retries")
            fields = lifecycle.published(identity, retries, request.request_dict.get("eta"))
            self._append(identity, retries, fields, fresh=True)

    def task_revoked(self, sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        if self._follows(sender):
            self._end(sender, request, lifecycle.revoked(bool(expired), bool(terminated), ended_because()))

    def task_unknown(self, sender: Any, message: Any, name: str, id: str, **_: Any) -> None:
        if sender.app is self._bridge.app:
            fields = lifecycle.failed(lifecycle.NoSuchTask(name), expose=False)
            self._end_message(message.headers, id, name, fields)

    def task_rejected(self, sender: Any, message: Any, exc: BaseException | None, **_: Any) -> None:
        headers = message.headers or {}
        if sender.app is self._bridge.app and headers.get("id"):
            fields = lifecycle.failed(lifecycle.UnreadableMessage(), expose=False)
            self._end_message(headers, headers["id"], headers.get("task", "unknown"), fields)

    # In the process that executes (prefork: a pool process; else the worker itself)

    def task_prerun(self, sender: Any, task_id: str, args: Any, kwargs: Any, **_: Any) -> None:
        if not self._follows(sender):
            return
        run = self._bridge.begin(sender, args, kwargs)
        enter(run)

    def task_success(self, sender: Any, result: Any, **_: Any) -> None:
        run = self._current(sender.request.id)
        if run is not None:
            run.finish(lifecycle.completed(result, self._bridge.declaration(sender).public_result))

    def task_failure(self, sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        """In the executing process, or in the main one for what the executing one can't tell."""
        if not self._follows(sender) or goes_on_after_report():
            return
        fields = lifecycle.failed(exception, self._bridge.settings.expose_errors)
        run = self._current(task_id)
        if run is not None:
            logs = [LogLine("error", fields["error_message"], time.time())]
            run.finish(fields, logs)
            self._end_those_waiting(sender.request)
            return
        request = reported_request() or sender.request
        if request.get("id"):  # else an error after the run, told by task_internal_error
            self._end(sender, request, fields)

    def task_retry(self, sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
        """Tells why there is another attempt, if nobody has: `retry` of the user's own may not go by ours."""
        if not self._follows(sender) or reason is None:  # of a run that is cancelled, told by its request
            return
        run = self._current(request.id)
        if run is None:  # the main process took the run back, its message stays
            self.requeued(sender, request)
            return
        if run.has_told_why:
            return
        fields, logs = self._reason(run, getattr(reason, "exc", None) or reason)
        self._patch(run.root_id, Patch(run.run_id, run.attempt + 1, time.time(), fields, logs, existing=True))

    def task_internal_error(
        self, sender: Any, task_id: str, exception: BaseException, **context: Any
    ) -> None:
        if self._follows(sender):
            self._end(
                sender, context.get("request") or sender.request, lifecycle.failed(exception, expose=False)
            )

    def task_postrun(self, sender: Any, task_id: str, state: str | None, **_: Any) -> None:
        run = self._current(task_id)
        if run is None:
            return
        if state == "IGNORED" and not run.handed_over and not run.lease_lost:
            run.finish(lifecycle.completed(None, show_result=False, state="IGNORED"))
        else:
            run.flush()
        enter(run.outer)

    def process_shutdown(self, **_: Any) -> None:
        self._bridge.appender.close()

    # Told by bridge.task, bridge.worker.request and bridge.limits.admission

    def told_of(self, meta: str, fields: dict[str, Any]) -> None:
        """A run whose worker died, or was taken for dead; `meta` tells whose it is."""
        known = json.loads(meta)
        if known["mirror"]:
            self._patch(known["root"], Patch(known["id"], known["n"], time.time(), fields, existing=True))

    def waiting(self, request: Any, gate: str, position: int) -> None:
        """The run is held back by a limit."""
        if self._follows(request.task):
            sent = request.request_dict
            try:
                identity = self._bridge.identity_of(request.task, sent, request.args, request.kwargs)
            except ArgumentError:  # `send_task` by name checks nothing; the run fails when it starts
                identity = self._bridge.identity_of(request.task, sent, None, None)
            if request.delivery_info.get("redelivered"):  # what the row shows is over, its worker died
                self.requeued(request.task, request._context)
            fields = lifecycle.waiting(reason(gate), position)
            self._append(identity, sent.get("retries"), fields, fresh=True)

    def publication_failed(self, task_id: str) -> None:
        """The broker took no message, so the run that was shown as queued never comes."""
        fields = lifecycle.failed(lifecycle.PublishFailed(), expose=False)
        around = current_run()
        root = around.root_id if around is not None else run_uuid(task_id)
        self._patch(root, Patch(run_uuid(task_id), 0, time.time(), fields, existing=True))

    def requeued(self, sender: Any, request: Any) -> None:
        """The run goes back to its queue with no signal of Celery's; its attempt starts anew."""
        if not self._follows(sender):
            return
        identity = self._bridge.identity_of(sender, request, None, None)
        self._append(identity, request.get("retries"), lifecycle.queued_again())

    def lost(self, sender: Any, request: Any, store_result: bool) -> None:
        """The run was stopped, and its message was acked before: nobody will try it again."""
        error = lifecycle.WorkersLost()
        sender.backend.mark_as_failure(request.id, error, request=request, store_result=store_result)
        if self._follows(sender):
            self._end(sender, request, lifecycle.failed(error, expose=False))

    def stored(self, sender: Any, request: Any, meta: Mapping[str, Any]) -> None:
        """The result is stored, and the process that was to tell the row so may have been stopped before."""
        if not self._follows(sender):
            return
        show_result = self._bridge.declaration(sender).public_result
        fields = lifecycle.stored(meta, show_result, self._bridge.settings.expose_errors)
        if fields is not None:
            identity = self._bridge.identity_of(sender, request, None, None)
            self._append(identity, request.get("retries"), {**identity.fields(), **fields})
            if fields["status"] != "completed":
                self._end_those_waiting(request)

    # Pieces

    def _why_again(self, run_id: str) -> tuple[dict[str, Any], list[LogLine]]:
        """Why a run has another attempt, told with that: its end may come before this process goes on."""
        attempt = next_attempt()
        run = attempt.run if attempt is not None else None
        if attempt is None or run is None or run.run_id != run_id or run.has_told_why:
            return {}, []
        run.has_told_why = True
        return self._reason(run, attempt.reason)

    def _reason(self, run: Run, error: BaseException) -> tuple[dict[str, Any], list[LogLine]]:
        message = lifecycle.describe(error, self._bridge.settings.expose_errors)[1]
        line = LogLine("warning", f"Attempt {run.attempt}: {message} Trying again.", time.time())
        return {"error_code": "retry", "error_message": message}, [line]

    def _is_ours(self, task: str) -> bool:
        app: Celery = self._bridge.app
        publisher = sender_of()
        return app is publisher if publisher is not None else task in app.tasks

    def _follows(self, task: Any) -> bool:
        return task.app is self._bridge.app and self._mirrored(task.name)

    def _mirrored(self, name: str) -> bool:
        return name not in _HOUSEKEEPING and self._bridge.is_mirrored(name)

    @staticmethod
    def _current(task_id: str) -> Run | None:
        run = current_run()
        return run if run is not None and run.run_id == run_uuid(task_id) else None

    def _end(self, task: Any, request: Any, fields: dict[str, Any]) -> None:
        identity = self._bridge.identity_of(task, request, None, None)
        logs = [LogLine("error", fields["error_message"], time.time())]
        self._append(identity, request.get("retries"), {**identity.fields(), **fields}, logs)
        self._end_those_waiting(request)

    def _end_message(self, headers: Any, task_id: str, name: str, fields: dict[str, Any]) -> None:
        identity = self._bridge.identity_of_message(name, task_id, headers or {})
        self._append(identity, (headers or {}).get("retries"), {**identity.fields(), **fields})

    def _end_those_waiting(self, request: Any) -> None:
        for run_id in lifecycle.members_waiting_for(request):
            fields = lifecycle.failed(lifecycle.UpstreamFailed(), expose=False)
            root = run_uuid(request.get("root_id") or request.get("id"))
            self._patch(root, Patch(run_id, 0, time.time(), fields, existing=True))

    def _append(
        self,
        identity: lifecycle.Identity,
        retries: object,
        fields: dict[str, Any],
        logs: list[LogLine] | None = None,
        fresh: bool = False,
        parts: int = 1,
    ) -> None:
        attempt = identity.attempt(retries)
        patch = Patch(identity.run_id, attempt, time.time(), fields, logs or [], fresh=fresh, parts=parts)
        self._patch(identity.root_id, patch)

    def _patch(self, root_id: str, patch: Patch) -> None:
        self._bridge.appender.append([(root_id, patch)])
