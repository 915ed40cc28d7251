"""How many runs of a task may execute at once, and how many may start in a time."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from bridge.errors import ArgumentError

Key = str | Callable[..., Any]

MOST_SLOTS: Final = 1_000_000
MOST_UNITS: Final = 1_000_000_000
"""The largest `count` of a rate: tokens of a language model per minute fit, a mistyped figure does not."""

LONGEST_PER: Final = timedelta(days=366)
_TICK: Final = timedelta(milliseconds=1)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `slots` runs execute at once, over all workers; split by `key`, shared by `name`.

    A run holds its slot from its admission, right before the pool, until it ends: success, failure,
    cancel, time limit, or the death of its worker. Runs that are queued, scheduled or waiting hold none,
    nor does the countdown of a retry; `self.replace(...)` gives the slot back, and what goes on in
    its place waits by the limits of its own task.

    >>> Limit(1, key="user_id")         # one run of each user
    >>> Limit(2, key=lambda user_id, source: (user_id, source))    # called with these arguments, by name
    >>> Limit(20, name="openai")        # one limit shared by several tasks

    Without a name it is its task's own: `<task>`, or `<task>:<key>`.

    Raises:
        ArgumentError: a value that cannot work (a ValueError).
    """

    slots: int
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _whole_number("concurrency", self.slots, MOST_SLOTS)
        _check_key_and_name(self.key, self.name)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` units start in any window of `per`, over all workers; split by `key`, shared by `name`.

    The window slides: whenever it is laid, no more than `count` units started in it (a log of the starts,
    exact to a thousandth of `per`), so there is no double burst where two periods meet. A run takes
    its units when it starts, one or `units(...)`, and gives none back, however it ends; each retry starts
    anew and takes them again.

    >>> Rate(100, per=timedelta(minutes=1), name="openai", units=lambda batch: len(batch))

    Without a name it is its task's own; rates and limits of one name have nothing to do with each other.

    Raises:
        ArgumentError: a value that cannot work (a ValueError).
    """

    count: int
    per: timedelta
    key: Key | None = None
    name: str | None = None
    units: Callable[..., int] | None = None

    def __post_init__(self) -> None:
        _whole_number("count", self.count, MOST_UNITS)
        if not isinstance(self.per, timedelta) or not _TICK <= self.per <= LONGEST_PER:
            raise ArgumentError("per", self.per, "give a positive timedelta, from a millisecond to a year")
        _check_key_and_name(self.key, self.name)
        if self.units is not None:
            if not callable(self.units):
                raise ArgumentError(
                    "units", self.units, "give a function, as in units=lambda batch: len(batch)"
                )
            Inputs.of("units", self.units)


Concurrency = int | Limit | Sequence[Limit]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a run that a function of the declaration is called with, by name."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    everything: bool

    @classmethod
    def of(cls, option: str, fun: Callable[..., Any]) -> Inputs:
        """What `fun` asks for by the names of its parameters; `**kwargs` gets all arguments.

        Raises:
            ArgumentError: the function cannot be called with arguments by name.
        """
        try:
            parameters = inspect.signature(fun).parameters.values()
        except (ValueError, TypeError) as error:
            raise ArgumentError(option, fun, "its parameters cannot be read; wrap it in a lambda") from error
        if inspect.iscoroutinefunction(fun):
            raise ArgumentError(option, fun, "it is async; give a plain function that returns at once")
        everything = any(one.kind is one.VAR_KEYWORD for one in parameters)
        required: list[str] = []
        optional: list[str] = []
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                (required if one.default is one.empty else optional).append(one.name)
            elif one.kind is not one.VAR_KEYWORD and not everything:
                raise ArgumentError(option, fun, f"arguments come by name, so {one} would stay empty")
        return cls(tuple(required), tuple(optional), everything)

    def out_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments to call the function with."""
        if self.everything:
            return dict(arguments)
        return {name: arguments[name] for name in (*self.required, *self.optional) if name in arguments}


def limits_of(concurrency: Concurrency | None) -> tuple[Limit, ...]:
    """What a task's `concurrency` option means, as limits that are decided together."""
    if concurrency is None:
        return ()
    if isinstance(concurrency, Limit):
        return (concurrency,)
    if isinstance(concurrency, Sequence) and not isinstance(concurrency, str):
        if not concurrency or not all(isinstance(limit, Limit) for limit in concurrency):
            raise ArgumentError("concurrency", concurrency, "a list may hold Limit(...) values only")
        return tuple(concurrency)
    return (Limit(concurrency),)


def rates_of(rate: Rate | Sequence[Rate] | None) -> tuple[Rate, ...]:
    """What a task's `rate` option means, as rates that are decided together."""
    if rate is None:
        return ()
    rates = (rate,) if isinstance(rate, Rate) else tuple(rate) if isinstance(rate, Sequence) else ()
    if not rates or not all(isinstance(one, Rate) for one in rates):
        raise ArgumentError("rate", rate, "give a Rate(count, per=timedelta(...)) or a list of them")
    return rates


def name_of(limit: Limit | Rate, task: str) -> str:
    """The name that a limit of this task goes by; runs that name the same one share it."""
    if limit.name is not None:
        return limit.name
    return task if limit.key is None else f"{task}:{called(limit.key)}"


def called(key: Any) -> str:
    """What a key, or a function, is called in a name or a message."""
    return key if isinstance(key, str) else getattr(key, "__name__", type(key).__name__)


def needs_of(limit: Limit | Rate) -> Iterator[tuple[str, str]]:
    """Each (option, argument) of a task that the limit cannot be decided without."""
    units = limit.units if isinstance(limit, Rate) else None
    for option, value in (("key", limit.key), ("units", units)):
        if isinstance(value, str):
            yield option, value
        elif value is not None:
            for name in Inputs.of(option, value).required:
                yield f"{option}={called(value)}", name


def twice(task: str, limits: Sequence[Limit | Rate]) -> str | None:
    """The first name that two limits of one task go by, or None."""
    names = [name_of(limit, task) for limit in limits]
    return next((name for name in names if names.count(name) > 1), None)


def _whole_number(field: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(field, value, "give a whole number of at least 1")
    if value > most:
        raise ArgumentError(field, value, f"at most {most:,} can be counted; leave it out for no limit")


def _check_key_and_name(key: Any, name: Any) -> None:
    if callable(key):
        Inputs.of("key", key)
    elif key is not None and (not isinstance(key, str) or not key):
        raise ArgumentError("key", key, "name an argument of the task, or give a function of its arguments")
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise ArgumentError("name", name, "letters, digits and _ . : - only, 1 to 100 of them")
