"""What a task declares to the bridge, checked when the module that declares it is imported."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any, Final
from uuid import UUID

from celery.app.task import Task as CeleryTask

from bridge.errors import ArgumentError, DeclarationError
from bridge.events import UUID_TEXT
from bridge.limits.declared import Limit, Rate, limits_of, needs_of, rates_of, twice
from bridge.limits.gates import Turnstile

OPTIONS: Final = ("concurrency", "rate", "on_limit", "channel", "owner", "public_result", "mirror")
ON_LIMIT: Final = ("wait", "drop", "cancel_running")

_CELERY_OPTIONS: Final = frozenset(dir(CeleryTask)) | {
    "base", "bind", "name", "shared", "lazy", "filter", "pydantic", "pydantic_strict", "pydantic_context",
    "pydantic_dump_kwargs", "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff",
    "retry_backoff_max", "retry_jitter", "queue", "routing_key", "exchange", "run",
}  # fmt: skip
CHANNEL: Final = re.compile(r"[\w.:@+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Declaration:
    """The options of one task, understood: its limits, whose its runs are, and where they report."""

    task: str
    signature: inspect.Signature | None
    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    on_limit: str = "wait"
    channel: str | None = None
    owner: str = "user_id"
    public_result: bool = False
    mirror: bool = True

    @property
    def bounds(self) -> tuple[Limit | Rate, ...]:
        """Its limits, then its rates."""
        return (*self.limits, *self.rates)

    @cached_property
    def turnstile(self) -> Turnstile:
        """What tells the gates of a run; see `bridge.limits.gates.passage_of`."""
        return Turnstile(self.task, self.limits, self.rates)

    def owner_of(self, arguments: Mapping[str, Any]) -> str | None:
        """The user whose run this is, or None where the task has no such argument.

        Raises:
            ArgumentError: the argument is no UUID, so it names no Supabase user.
        """
        value = arguments.get(self.owner)
        if value is None:
            return None
        try:
            text = str(value)
            return text if UUID_TEXT.fullmatch(text) else str(UUID(text))
        except ValueError:
            raise ArgumentError(
                self.owner, value, f"{self.task} needs the user's id, the UUID in auth.users.id"
            ) from None

    def channel_of(self, arguments: Mapping[str, Any]) -> str | None:
        """The channel that this run reports on, from the task's template and the run's arguments.

        Raises:
            ArgumentError: an argument of the template is missing, or gives no channel name.
        """
        if self.channel is None:
            return None
        names = [name for _, name, _, _ in Formatter().parse(self.channel) if name]
        for name in names:
            if arguments.get(name) is None:
                raise ArgumentError(name, None, f"{self.task} reports on {self.channel!r}: pass {name}")
        try:
            channel = self.channel.format_map({name: arguments[name] for name in names})
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ArgumentError("channel", self.channel, f"does not fit the arguments ({error})") from error
        if not CHANNEL.fullmatch(channel):
            raise ArgumentError("channel", channel, "letters, digits and . : @ + _ - only, at most 200")
        return channel

    def arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The run's arguments by name, defaults filled in; empty when they do not fit the function."""
        if self.signature is None:
            return dict(kwargs)
        if (matched := self._matched(args, kwargs)) is not None:
            return matched
        try:
            bound = self.signature.bind_partial(*args, **kwargs)
        except TypeError:
            return dict(kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if self._rest is not None:  # what `**kwargs` took, by the names it was given under
            arguments.update(arguments.pop(self._rest))
        return arguments

    def _matched(self, args: Any, kwargs: Any) -> dict[str, Any] | None:
        """The same at a tenth of the cost, of the calls and the functions that nearly all are."""
        names, all_names = self._positional, self._names
        is_usual = isinstance(args, (list, tuple)) and isinstance(kwargs, dict)
        if names is None or all_names is None or not is_usual or len(args) > len(names):
            return None
        given = dict(zip(names, args, strict=False))
        if not kwargs:
            return {**self._defaults, **given}
        fits = kwargs.keys() <= all_names and given.keys().isdisjoint(kwargs)
        return {**self._defaults, **given, **kwargs} if fits else None

    @cached_property
    def _positional(self) -> tuple[str, ...] | None:
        """The arguments that may be given by place; None where the function also takes any others."""
        parameters = self.signature.parameters.values() if self.signature else ()
        usual = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if not all(one.kind in usual for one in parameters):
            return None
        return tuple(one.name for one in parameters if one.kind is usual[0])

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        parameters = self.signature.parameters.values() if self.signature else ()
        return {one.name: one.default for one in parameters if one.default is not one.empty}

    def takes(self, name: str) -> bool:
        """Whether a run may have an argument of this name."""
        return self._names is None or self._rest is not None or name in self._names

    @cached_property
    def _names(self) -> frozenset[str] | None:
        return frozenset(self.signature.parameters) if self.signature is not None else None

    @cached_property
    def _rest(self) -> str | None:
        parameters = self.signature.parameters.values() if self.signature else ()
        return next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)


def declare(
    task: str, fun: Callable[..., Any] | None, bound: bool, options: Mapping[str, Any]
) -> Declaration:
    """Check the options of a task and say what they mean.

    Raises:
        DeclarationError: an option is unknown, contradictory or cannot work with the function.
    """
    signature = _signature(fun, bound)
    try:
        limits = limits_of(options.get("concurrency"))
        rates = rates_of(options.get("rate"))
    except ValueError as error:
        raise DeclarationError(task, str(error), "see Limit and Rate") from error
    declaration = Declaration(
        task,
        signature,
        limits,
        rates,
        on_limit=_one_of(task, "on_limit", options.get("on_limit") or "wait", ON_LIMIT),
        channel=options.get("channel"),
        owner=options.get("owner") or "user_id",
        public_result=options.get("public_result") or False,
        mirror=options.get("mirror") is not False,
    )
    _check_names(declaration, options)
    return declaration


def refuse_unknown(task: str, options: Iterable[str], of_base: Iterable[str] = ()) -> None:
    """Fail on an option that neither Celery, nor the bridge, nor the task's base class knows."""
    names = {*_CELERY_OPTIONS, *OPTIONS, *of_base}
    for option in options:
        if option not in names and not option.startswith("_"):
            near = difflib.get_close_matches(option, names, n=1)
            known = ", ".join(OPTIONS)
            remedy = f"did you mean `{near[0]}`?" if near else f"the bridge's options are {known}"
            raise DeclarationError(task, f"unknown option `{option}`", remedy)


def _signature(fun: Callable[..., Any] | None, bound: bool) -> inspect.Signature | None:
    if fun is None:
        return None
    signature = inspect.signature(fun)
    if bound:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    return signature


def _check_names(declaration: Declaration, options: Mapping[str, Any]) -> None:
    _check_limits(declaration)
    if options.get("owner"):
        _known_argument(declaration, "owner", declaration.owner)
    for name in _template_names(declaration):
        _known_argument(declaration, f"channel={declaration.channel!r}", name)


def _check_limits(declaration: Declaration) -> None:
    task, limits, rates = declaration.task, declaration.limits, declaration.rates
    for limit in declaration.bounds:
        for option, name in needs_of(limit):
            _known_argument(declaration, option, name)
    for kind, double in (("limits", twice(task, limits)), ("rates", twice(task, rates))):
        if double is not None:
            remedy = "keep one of them, or give each a name=... of its own"
            raise DeclarationError(task, f"two of its {kind} go by the name `{double}`", remedy)
    if declaration.signature is None:
        return  # a base class: its tasks bring limits of their own
    if declaration.on_limit != "wait" and not limits and not rates:
        raise DeclarationError(
            task, f"on_limit={declaration.on_limit!r} without a limit", "add concurrency=..."
        )
    if declaration.on_limit == "cancel_running" and not limits:
        problem = "on_limit='cancel_running' with a rate alone, which a cancelled run gives nothing back to"
        raise DeclarationError(task, problem, "add concurrency=..., or use 'drop'")


def _template_names(declaration: Declaration) -> list[str]:
    if declaration.channel is None:
        return []
    try:
        parsed = list(Formatter().parse(declaration.channel))
    except (ValueError, TypeError) as error:
        raise DeclarationError(
            declaration.task, f"channel={declaration.channel!r} is no template ({error})", "write {argument}"
        ) from error
    names = [name for _, name, _, _ in parsed if name is not None]
    for name in names:
        if not name.isidentifier():
            problem = f"channel={declaration.channel!r} uses {{{name}}}"
            raise DeclarationError(declaration.task, problem, "name plain arguments only")
    return names


def _known_argument(declaration: Declaration, option: str, name: str) -> None:
    if declaration.signature is None:
        return
    parameters = declaration.signature.parameters
    if name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    near = difflib.get_close_matches(name, parameters, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(parameters) or 'none'}"
    raise DeclarationError(declaration.task, f"{option} names the missing argument `{name}`", remedy)


def _one_of(task: str, option: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value in allowed:
        return str(value)
    raise DeclarationError(task, f"{option}={value!r}", f"it is one of {', '.join(map(repr, allowed))}")
