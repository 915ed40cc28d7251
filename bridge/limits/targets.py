"""What operators may name: tasks, limits and rates, and one key of a limit."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from bridge.errors import ArgumentError
from bridge.limits.gates import Gate, encoded_key, field_of, quoted
from bridge.limits.survey import is_cut

if TYPE_CHECKING:
    from bridge.extension import Bridge

WHOLE: Final = object()
"""Stands for no key: the task or the limit as a whole."""

_LISTED: Final = 8


class Targets:
    """Names, looked up in the code that is loaded, then in Redis, then in all code of the app."""

    def __init__(self, bridge: Bridge, in_redis: Callable[[], Iterable[str]]) -> None:
        self._bridge, self._in_redis = bridge, in_redis

    def limit(self, name: str) -> list[str]:
        """What a limit and a rate of this name are filed under, `slots|<name>` and `rate|<name>`.

        Raises:
            ArgumentError: there is neither.
        """
        found, known = self._found(name)
        if not found:
            raise _unknown(name, "limit or rate", {Gate.read(f"{field}|").name for field in known})
        return found

    def pausable(self, name: str, key: Any = WHOLE) -> str:
        """The target of a pause.

        Raises:
            ArgumentError: there is no such task, limit or rate, or it is not split by key.
        """
        if key is not WHOLE:
            return self.whole_or_key(name, key)
        if name in self._tasks():
            return possible(name)[0]
        found, known = self._found(name)
        if not found and name not in self._tasks():  # now that all code is loaded
            names = {Gate.read(f"{field}|").name for field in known}
            raise _unknown(name, "task, limit or rate", {*self._tasks(), *names})
        return possible(name)[1 if found else 0]

    def whole_or_key(self, name: str, key: Any) -> str:
        """The target of a pause of a limit or rate.

        Raises:
            ArgumentError: there is none of this name, or it is not split by key.
        """
        fields = self.limit(name)
        if key is not WHOLE and self.unsplit.issuperset(fields):
            raise ArgumentError("key", key, f"{name} is not split by a key; leave the key out")
        return possible(name, key)[-1]

    @property
    def split(self) -> set[str]:
        """The limits that the loaded code splits by a key."""
        return {field for field, has_key in self._limits() if has_key}

    @property
    def unsplit(self) -> set[str]:
        """The limits that the loaded code does not split."""
        return {field for field, has_key in self._limits() if not has_key}

    def _limits(self) -> Iterable[tuple[str, bool]]:
        for task in self._bridge.app.tasks.values():
            declared = self._bridge.declaration(task)
            for limit in declared.bounds:
                yield field_of(limit, declared.task), limit.key is not None

    def _tasks(self) -> set[str]:
        return {name for name in self._bridge.app.tasks if not name.startswith("celery.")}

    def _found(self, name: str) -> tuple[list[str], set[str]]:
        """What a name is filed under, and all that was looked through."""
        wanted = [f"slots|{quoted(name)}", f"rate|{quoted(name)}"]
        known: set[str] = set()
        for more in (self._bridge.declared_values, self._in_redis, self._all_declared):
            known.update(more())
            if found := [field for field in wanted if field in known]:
                return found, known
        return [], known

    def _all_declared(self) -> Iterable[str]:
        self._bridge.app.loader.import_default_modules()
        return self._bridge.declared_values()


def possible(name: str, key: Any = WHOLE) -> list[str]:
    """What a name may stand for: a task, then a limit; with a key that key of a limit.

    Raises:
        ArgumentError: the key is no text, number or such.
    """
    limit = f"limit|{quoted(name)}|"
    if key is WHOLE:
        return [f"task|{quoted(name)}|", limit]
    try:
        return [limit + (key if isinstance(key, str) and is_cut(key) else encoded_key(key))]
    except (TypeError, ValueError) as error:
        raise ArgumentError("key", key, "give a str, a number, a UUID or a tuple of them") from error


def _unknown(name: str, kind: str, known: set[str]) -> ArgumentError:
    longer = sorted(each for each in known if each.startswith(f"{name}:"))  # a limit that is split by key
    near = longer or difflib.get_close_matches(name, known, n=1)
    names = sorted(known)
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    remedy = f"did you mean `{near[0]}`?" if near else f"known are {listed}" if known else "none is declared"
    return ArgumentError("name", name, f"no {kind} goes by this name; {remedy}")
