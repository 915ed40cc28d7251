"""What one run has to pass before it executes: its gates, its lane, its units. Pure, and fast.

A *gate* is one thing that can hold a run back, `slots|<name>|<key>` or `rate|<name>|<key>`; a *lane* is the
runs that wait for the same gates, first come first served. Names and keys are percent-encoded, so that
ids can be joined by blanks.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from bridge.errors import PublicError
from bridge.limits.declared import Inputs, Limit, Rate, called, name_of

if TYPE_CHECKING:
    from bridge.options import Declaration

LONGEST_KEY: Final = 120

_PLAIN: Final = re.compile(rf"[A-Za-z0-9_.:@+-]{{1,{LONGEST_KEY}}}")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]", re.IGNORECASE)

Arguments = Mapping[str, Any]


class BadKey(PublicError):
    """A run that does not tell the key of a limit, so that it must not start."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="limit_key")


class BadUnits(PublicError):
    """A run that takes no number of units of a rate, or more than there ever are."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="limit_units")


@dataclass(frozen=True, slots=True)
class Passage:
    """What one run has to pass: `units[i]` of `gates[i]`; the runs of one `lane` wait in one line.

    The lane is `task|<task>|` and the gates, joined by blanks: slots split by key, other slots, rates.
    """

    lane: str
    units: tuple[int, ...]
    gates: tuple[str, ...]


class Gate(NamedTuple):
    """A gate's id, decoded for display; `key` is empty where it is not split."""

    kind: str
    name: str
    key: str

    @classmethod
    def read(cls, gate_id: str) -> Gate:
        """Decode one id, or a lane's first part, whose kind is "task".

        >>> Gate.read("slots|tasks.embed:team|a%2Fb")
        Gate(kind='slots', name='tasks.embed:team', key='a/b')
        """
        kind, name, key = gate_id.split("|")
        return cls(kind, unquote(name), unquote(key))


def passage_of(declaration: Declaration, arguments: Arguments) -> Passage:
    """What a run with these arguments has to pass.

    Raises:
        BadKey, BadUnits: the arguments do not tell, or ask for what can never be had.
    """
    return declaration.turnstile.passage(arguments)


def declared_values(declaration: Declaration) -> dict[str, str]:
    """The value of each limit of a task as Redis keeps it.

    >>> declared_values(declaration)
    {'slots|tasks.embed': '5', 'rate|openai': '100:60000'}
    """
    return {field_of(limit, declaration.task): value_of(limit) for limit in declaration.bounds}


def field_of(limit: Limit | Rate, task: str) -> str:
    """What a limit of this task is filed under, its key apart: `slots|<name>` or `rate|<name>`."""
    kind = "slots" if isinstance(limit, Limit) else "rate"
    return f"{kind}|{quoted(name_of(limit, task))}"


def value_of(limit: Limit | Rate) -> str:
    """A limit's declared value as Redis keeps it: its slots, or `<count>:<milliseconds>`."""
    if isinstance(limit, Limit):
        return str(limit.slots)
    return f"{limit.count}:{-(-limit.per // timedelta(milliseconds=1))}"


def quoted(text: str) -> str:
    """Text without blank, `|`, `,` and `~`."""
    return quote(text, safe=":@+.-_", errors="surrogatepass").replace("~", "%7E")


def encoded_key(value: Any) -> str:
    """How the value of a key stands in a gate's id; a long one as its beginning and its hash.

    Raises:
        TypeError: the value is not the same text in every process.
    """
    text = value if value.__class__ is str else _text(value)
    if _PLAIN.fullmatch(text):
        return text
    encoded = quoted(text[: LONGEST_KEY + 1] or '""')  # nothing at all stands for "not split"
    if len(encoded) <= LONGEST_KEY:
        return encoded
    return f"{encoded[:60]}~{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float, list, tuple, dict)):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_stable)
    return _stable(value)


def _stable(value: Any) -> str:
    text = str(value)
    if isinstance(value, (set, frozenset)) or _ADDRESS.search(text):
        raise TypeError(f"a {type(value).__name__} is another text in each process")
    return text


class Turnstile:
    """The gates of a task, made ready once so that the passage of a run costs microseconds."""

    def __init__(self, task: str, limits: tuple[Limit, ...], rates: tuple[Rate, ...]) -> None:
        slots = sorted(limits, key=lambda limit: limit.key is None)  # those split by key come first
        both: tuple[Limit | Rate, ...] = (*slots, *rates)
        self._task = f"task|{quoted(task)}|"
        self._prefixes = tuple(f"{field_of(limit, task)}|" for limit in both)
        self._keys = tuple(_key_reader(limit, task) for limit in both)
        self._ones = (1,) * len(slots)
        self._units = tuple(_units_reader(rate, task) for rate in rates)
        varies = any(self._keys) or any(self._units)
        self.always = None if varies else self._made({})  # of each run, whatever its arguments

    def passage(self, arguments: Arguments) -> Passage:
        """What a run with these arguments has to pass; see `passage_of`."""
        return self.always or self._made(arguments)

    def _made(self, arguments: Arguments) -> Passage:
        gates = tuple(
            prefix if key is None else prefix + key(arguments)
            for prefix, key in zip(self._prefixes, self._keys, strict=True)
        )
        units = self._ones
        if self._units:
            units += tuple(1 if one is None else one(arguments) for one in self._units)
        return Passage(" ".join((self._task, *gates)), units, gates)


@dataclass(frozen=True, slots=True)
class _Question:
    """What a declaration asks of a run's arguments; where there is no answer, the run's user is told why."""

    function: Callable[..., Any]
    inputs: Inputs
    purpose: str
    task: str
    error: type[PublicError]

    def answer(self, arguments: Arguments) -> Any:
        for name in self.inputs.required:
            if name not in arguments:
                raise self.refusal(f"there is no argument {name}", "pass it")
        try:
            return self.function(**self.inputs.out_of(arguments))
        except Exception as error:
            problem = f"{called(self.function)} failed with {type(error).__name__}"
            raise self.refusal(problem, "correct it or its arguments") from error

    def refusal(self, problem: str, remedy: str) -> PublicError:
        # No word of what an exception says of itself: that stays in the worker's log.
        return self.error(f"{self.purpose}; for this run of {self.task} {problem}: {remedy}.")


def _key_reader(limit: Limit | Rate, task: str) -> Callable[[Arguments], str] | None:
    key = limit.key
    if key is None:
        return None
    name = name_of(limit, task)
    inputs = Inputs((key,), (), False) if isinstance(key, str) else Inputs.of("key", key)
    function = (lambda **found: found[key]) if isinstance(key, str) else key
    question = _Question(function, inputs, f"The limit {name} is split by {called(key)}", task, BadKey)

    def read(arguments: Arguments) -> str:
        value = question.answer(arguments)
        try:
            return encoded_key(value)
        except Exception as error:
            remedy = "give a str, a number, a UUID or a tuple of them"
            raise question.refusal(f"that is a {type(value).__name__}", remedy) from error

    return read


def _units_reader(rate: Rate, task: str) -> Callable[[Arguments], int] | None:
    if rate.units is None:
        return None
    name, inputs = name_of(rate, task), Inputs.of("units", rate.units)
    question = _Question(rate.units, inputs, f"The units of the rate {name} are counted", task, BadUnits)

    def read(arguments: Arguments) -> int:
        found = question.answer(arguments)
        try:
            units = -1 if isinstance(found, bool) else operator.index(found)
        except Exception:
            units = -1
        if units < 0:
            shown = found if type(found) is int else f"a {type(found).__name__}"
            problem = f"{called(rate.units)} gave {shown}"
            raise question.refusal(problem, "give a whole number of at least 0")
        if units > rate.count:
            problem = f"they are {units}, above the {rate.count} per {rate.per} that may start at all"
            raise question.refusal(problem, "split its work, or raise the rate")
        return units

    return read
