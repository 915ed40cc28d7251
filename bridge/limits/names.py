"""What the tasks of one app declared for each name of a limit, so that no two mean different values by it."""

from __future__ import annotations

from bridge.errors import DeclarationError
from bridge.limits.declared import Limit, Rate, called, name_of
from bridge.limits.gates import field_of, value_of
from bridge.options import Declaration


class Names:
    """The names of an app's limits and rates, and the tasks that share each."""

    def __init__(self) -> None:
        self._limits: dict[str, dict[str, Limit | Rate]] = {}

    def add(self, declaration: Declaration) -> None:
        """Remember a task's limits in place of what the same task declared before (a module's reload).

        Raises:
            DeclarationError: another task declared one of them differently.
        """
        task = declaration.task
        limits = {field_of(limit, task): limit for limit in declaration.bounds}
        for field, limit in limits.items():
            others = self._limits.get(field, {})
            other = next((name for name in others if name != task), None)  # those that are there agree
            if other is not None:
                _refuse_conflict(task, limit, other, others[other])
        for of_tasks in self._limits.values():
            of_tasks.pop(task, None)
        for field, limit in limits.items():
            self._limits.setdefault(field, {})[task] = limit


def _refuse_conflict(task: str, limit: Limit | Rate, other: str, theirs: Limit | Rate) -> None:
    problem = f"`{name_of(limit, task)}` is {_shown(limit)} here and {_shown(theirs)} in task {other}"
    if value_of(limit) != value_of(theirs):
        raise DeclarationError(task, problem, "give both the same value, or one of them another name")
    if (limit.key is None) != (theirs.key is None):
        raise DeclarationError(task, problem, "give both a key or none, or one of them another name")


def _shown(limit: Limit | Rate) -> str:
    key = "" if limit.key is None else f", key={called(limit.key)}"
    if isinstance(limit, Limit):
        return f"Limit({limit.slots}{key})"
    return f"Rate({limit.count}, per={limit.per}{key})"
