"""Flower for operators: `celery -A tasks flower --conf=config/flower.py`, then http://127.0.0.1:5555.

Three rules, so that neither a forgotten password nor a shared screen gives anything away:

- with `FLOWER_PASSWORD`, whoever knows it sees and controls the workers;
- without one, only this machine is served, its pages are read-only and Flower's HTTP API stays closed;
- without one on any other address, Flower does not start.

Arguments and results of tasks carry personal data: of each, only the kind is kept (`user_id: str`).
Flower's own `format_task` would rewrite the task pages alone; its HTTP API, its search and the page of a
worker go past it, so the values are taken out where they enter.
What stays readable with the password: exceptions with their tracebacks, and a run's result asked for by id.
"""

from __future__ import annotations

import sys
from ast import literal_eval
from ipaddress import ip_address
from typing import Any

from flower.events import EventsState
from flower.inspector import Inspector
from tornado.options import options  # what the command line and Flower's own variables have said so far

from config.settings import settings


def kind_of(value: Any) -> str | None:
    """What is left of a value, or of the text that Celery made of it.

    >>> kind_of("'b5e1'"), kind_of("{'items': 5}"), kind_of(None)
    ('str', 'dict', None)
    """
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return "(hidden)"  # cut short by Celery, or no literal
    return None if value is None else type(value).__name__


def kinds_in(arguments: Any) -> str | None:
    """The same of each argument, beside its name if it has one.

    >>> kinds_in("{'user_id': 'b5e1', 'limit': 10}"), kinds_in(["b5e1", 10])
    ('user_id: str, limit: int', 'str, int')
    """
    if kind_of(arguments) not in ("dict", "list", "tuple"):
        return kind_of(arguments)
    values = literal_eval(arguments) if isinstance(arguments, str) else arguments
    if isinstance(values, dict):
        return ", ".join(f"{name}: {type(value).__name__}" for name, value in values.items())
    return ", ".join(type(value).__name__ for value in values)


def without_values(fields: dict[str, Any]) -> dict[str, Any]:
    """A task as Flower is told of it, with the kinds of its values in their place."""
    rewrite = {"args": kinds_in, "kwargs": kinds_in, "result": kind_of}
    return {name: rewrite[name](value) if name in rewrite else value for name, value in fields.items()}


class DiscreetTask(EventsState.Task):
    """A task as Flower remembers it from events."""

    def event(
        self, type_: str, timestamp: Any = None, local_received: Any = None, fields: Any = None, **rest: Any
    ) -> None:
        super().event(type_, timestamp, local_received, without_values(fields or {}), **rest)


def answered(inspector: Inspector, worker: str, method: str, answer: Any) -> None:
    """Keep a worker's answer about its tasks; those that wait for their time lie one level down."""
    if method in Inspector.task_inspect_methods:
        answer = [_discreet(each) for each in answer]
    _keep(inspector, worker, method, answer)


def _discreet(task: Any) -> Any:
    if not isinstance(task, dict):
        return task
    inner = {"request": without_values(task["request"])} if "request" in task else {}
    return without_values(task) | inner


def _serves_this_machine_only(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


EventsState.Task = DiscreetTask
_keep, Inspector._on_update = Inspector._on_update, answered

# Names that Flower takes from this file; what the command line says goes before them.
address = options.address or settings().flower_address
port = settings().flower_port
persistent = False
max_tasks = 10_000
natural_time = True

_password = settings().flower_password
basic_auth = list(options.basic_auth or ())
if _password is not None and not basic_auth:
    basic_auth = [f"{settings().flower_user}:{_password.get_secret_value()}"]

_protected = bool(basic_auth or options.auth)
read_only = options.read_only or not _protected
if not _protected and not options.unix_socket and not _serves_this_machine_only(address):
    sys.exit(f"taskcast: FLOWER_ADDRESS={address!r} serves other machines: set FLOWER_PASSWORD")
