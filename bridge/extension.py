"""`Bridge(app, settings)`: what makes a Celery app report its runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from celery import Celery
from celery.app.task import Task as CeleryTask
from kombu.utils.imports import symbol_by_name

from bridge.appender import Appender
from bridge.clock import SharedClock
from bridge.current import current_run
from bridge.errors import ArgumentError, SettingsError
from bridge.header import HEADER, counted, earlier_in, holder_in
from bridge.lifecycle import Identity, started
from bridge.limits.admission import Admission
from bridge.limits.control import LimitControl
from bridge.limits.fence import Fence
from bridge.limits.gatekeeper import Gatekeeper
from bridge.limits.gates import declared_values
from bridge.limits.names import Names
from bridge.options import OPTIONS, Declaration, declare, refuse_unknown
from bridge.outbox import Outbox, OutboxUnavailable, RedisOutbox
from bridge.publication import Publication, identify, publication
from bridge.redis_transport import keeping_clients
from bridge.run import Run
from bridge.sending import sending
from bridge.settings import BridgeSettings
from bridge.signals import Signals
from bridge.task import BridgeTask
from bridge.worker.spawned import report_when_spawned


class Bridge:
    """Mirrors every state and progress change of an app's runs; create it right after the app.

    >>> app = Celery("tasks")
    >>> Bridge(app, BridgeSettings())

    Args:
        outbox: where events go; Redis Streams unless another is given (see `bridge.testing`).

    Raises:
        SettingsError: the app's tasks were made before the bridge.
    """

    def __init__(self, app: Celery, settings: BridgeSettings | None = None, outbox: Outbox | None = None):
        self.app = app
        self.settings = settings or BridgeSettings()
        self.clock = SharedClock(self.settings.outbox)
        self.outbox: Outbox = outbox or RedisOutbox(self.settings.outbox, self.clock)
        self.fence = Fence(self.settings)
        self.appender = Appender(self.outbox, self.settings.outbox, fence=self.fence)
        self.gatekeeper: Gatekeeper | None = None  # in a worker's main process
        self._undeclared = Declaration("unknown", None)
        names = Names()
        report_when_spawned(app, app.task_cls, self.settings)
        _extend_task_class(app)
        app.task = _checking(app, names)
        app._task_from_fun = _reporting(app._task_from_fun, names)
        app.register_task = _naming(app.register_task, names)
        app.send_task = sending(app)
        app.producer_or_acquire = keeping_clients(app)
        app.bridge = self
        self.signals = Signals(self)

    def close(self) -> None:
        """Append what is pending and let go of the app; for tests and short-lived publishers."""
        self.appender.close()
        self.signals.disconnect()

    def declaration(self, task: Any) -> Declaration:
        """What a task declared; the defaults for one that is not made by this app's base class."""
        found = getattr(task, "declaration", None)
        return found if isinstance(found, Declaration) else self._undeclared

    @property
    def admission(self) -> Admission | None:
        """What runs ask before they start here; None outside of a worker's main process."""
        return self.gatekeeper.admission if self.gatekeeper is not None else None

    @cached_property
    def limits(self) -> LimitControl:
        """The limits while everything runs: looked at, changed, paused and resumed."""
        return LimitControl(self)

    def declared_values(self) -> dict[str, str]:
        """The value of each limit of the app's tasks, as Redis keeps it."""
        declarations = [self.declaration(task) for task in self.app.tasks.values()]
        return {field: value for each in declarations for field, value in declared_values(each).items()}

    def is_mirrored(self, name: str) -> bool:
        """Whether the runs of this task have rows; those of unknown tasks do."""
        return self.declaration(self.app.tasks.get(name)).mirror

    def publication(self, name: str, headers: Mapping[str, Any], body: Any, queue: str) -> Publication:
        """The identity of the run that a message being published is for."""
        task = self.app.tasks.get(name)
        around = current_run()
        if around is not None and around.identity.run_id == headers["id"]:
            around.flush()  # what this attempt said, before another one is announced
            earlier = max(earlier_in(headers), around.identity.earlier)
            return Publication(replace(around.identity, earlier=earlier), 1)
        max_retries = getattr(task, "max_retries", None)
        declared = self.declaration(task)
        try:
            return publication(name, declared, max_retries, headers, body, queue, around)
        except ArgumentError:  # `send_task` by name checks nothing; the worker will fail the run
            return publication(name, self._undeclared, max_retries, headers, body, queue, around)

    def begin(self, task: Any, args: Any, kwargs: Any) -> Run:
        """The run that starts in this process now."""
        request = task.request
        problem = None
        outer = current_run()
        around = outer if request.is_eager else None  # nobody published it
        try:
            identity = self.identity_of(task, request, args, kwargs, around)
        except ArgumentError as error:
            problem = error
            identity = self.identity_of(task, request, None, None, around)
        interval = self.settings.outbox.progress_interval.total_seconds()
        attempt = identity.attempt(request.retries)
        is_first = attempt == 1 and not (request.delivery_info or {}).get("redelivered")
        nesting = counted(request.replaced_task_nesting)
        run = Run(identity, attempt, self.appender, self.outbox, interval, nesting, is_first)
        run.problem = problem
        run.holder = holder_in(request.get(HEADER))
        run.outer = outer
        run.chained = _goes_on_as_one_task(request.chain)
        if not is_first:
            with suppress(OutboxUnavailable):  # then it is taken over when the body asks for it
                run.take_over()
        run.change(started(identity, time.time()))  # the outbox tells it by the shared clock
        return run

    def identity_of(
        self, task: Any, request: Any, args: Any, kwargs: Any, around: Run | None = None
    ) -> Identity:
        """The identity of a run from its task and request (a context, or a dict of headers).

        Raises:
            ArgumentError: arguments were given, and name no usable owner or channel.
        """
        get = request.get
        headers = {"id": get("id"), "root_id": get("root_id"), HEADER: get(HEADER)}
        declared = self.declaration(task)
        given = None if args is None and kwargs is None else (args or (), kwargs or {})
        queue = (get("delivery_info") or {}).get("routing_key")
        return identify(task.name, declared, task.max_retries, headers, given, queue, around)

    def identity_of_message(self, name: str, task_id: str, headers: Mapping[str, Any]) -> Identity:
        """The identity of a run from the headers of a message that no task takes."""
        known = {"id": task_id, "root_id": headers.get("root_id"), HEADER: headers.get(HEADER)}
        return identify(name, self._undeclared, None, known, None, None)


def _goes_on_as_one_task(chain: Any) -> bool:
    """Whether the next link of a chain is a plain task; a group or chord brings more than was announced."""
    return bool(chain) and chain[-1].get("subtask_type") not in ("group", "chord")


def _extend_task_class(app: Celery) -> None:
    if "Task" in vars(app) or len(app._tasks):
        raise SettingsError("Bridge(app, ...) comes right after app = Celery(...), before the first task")
    base = symbol_by_name(app.task_cls)  # type: ignore[no-untyped-call]
    app.task_cls = _with_reports(base)


def _with_reports(base: type) -> type:
    """A task class that reports; what the user's own class overrides goes on top."""
    if issubclass(base, BridgeTask):
        return base
    bases = (BridgeTask,) if base is CeleryTask else (base, BridgeTask)
    return type(base.__name__, bases, {"abstract": True, "__module__": base.__module__})


def _reporting(make: Callable[..., Any], names: Names) -> Callable[..., Any]:
    """What makes a task of a function, also for `shared_task`: a base of the user's own reports as well."""

    def task_from_fun(fun: Any, name: Any = None, base: Any = None, **options: Any) -> Any:
        task = make(fun, name=name, base=_with_reports(base) if base else None, **options)
        if isinstance(task, BridgeTask):  # one of `shared_task` comes here unchecked
            names.add(task.declaration)
        return task

    return task_from_fun


def _naming(register: Callable[..., Any], names: Names) -> Callable[..., Any]:
    """`app.register_task` for tasks that are classes: their limits go by the name that they run under."""

    def register_task(task: Any, **options: Any) -> Any:
        task = register(task, **options)
        if isinstance(task, BridgeTask):
            task.declaration = replace(task.declaration, task=task.name)  # type: ignore[misc]
            names.add(task.declaration)
        return task

    return register_task


def _checking(app: Celery, names: Names) -> Callable[..., Any]:
    """`app.task` that checks a declaration at import; Celery itself makes the task much later."""
    make = app.task

    def task(*args: Any, **options: Any) -> Any:
        if len(args) == 1 and callable(args[0]):
            names.add(_check(app, args[0], options))
            return make(*args, **options)

        def decorate(fun: Callable[..., Any]) -> Any:
            names.add(_check(app, fun, options))
            return make(**options)(fun)

        return decorate if not args else make(*args, **options)

    return task


def _check(app: Celery, fun: Callable[..., Any], options: Mapping[str, Any]) -> Declaration:
    name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
    base = options.get("base") or app.Task
    refuse_unknown(name, options, of_base=[*dir(base), *dir(BridgeTask)])
    inherited = {option: getattr(base, option, None) for option in OPTIONS}
    return declare(name, fun, bool(options.get("bind")), {**inherited, **options})
