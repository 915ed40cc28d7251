"""What an interrupted import leaves to its next attempt.

The accounts that are done, and how far the one in work is. Which pages it has is not in here: their cursor
is stored with their posts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from tasks.import_socials.models import Account, ImportOutcome

Summary = dict[str, Any]
"""{"account", "imported", "line", "error"?} of one account."""

_ROOM: Final = 60_000
"""Bytes of JSON for all of it. Of accounts that are done those are forgotten first that came first; they are
asked again for what is new."""

_COUNTS: Final = [each.name for each in fields(ImportOutcome) if each.name not in ("total", "first")]


@dataclass(frozen=True)
class Stage:
    """How far an account is: its pages, whether there are more, and how many posts were embedded since."""

    outcome: ImportOutcome
    imported: bool = False
    embedded: int = 0


@dataclass
class Journal:
    """Of one run, by account id; `write()` gives what `read()` takes."""

    done: dict[str, Summary] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)

    @classmethod
    def read(cls, state: Any) -> Journal:
        """The journal of a checkpoint; what other code has written counts as none."""
        try:
            stages = {id: _stage(stage) for id, stage in state["stages"].items()}
            return cls({id: _summary(summary) for id, summary in state["done"].items()}, stages)
        except (TypeError, KeyError, AttributeError, ValueError):
            return cls()

    def write(self) -> dict[str, Any]:
        """A value for a checkpoint, and small enough for one."""
        stages = {id: asdict(stage) for id, stage in self.stages.items()}
        done = dict(self.done)
        while done and len(json.dumps(done)) > _ROOM:
            for id in list(done)[: 1 + len(done) // 8]:
                del done[id]
        return {"done": done, "stages": stages}

    def stage(self, account: Account) -> Stage:
        """How far the account is; at its start if nothing is known of it."""
        return self.stages.get(account.id) or Stage(ImportOutcome(first=not account.cursor))

    def reached(self, account: Account, **values: Any) -> Stage:
        """Note how far the account is now."""
        self.stages[account.id] = replace(self.stage(account), **values)
        return self.stages[account.id]

    def finish(self, account: Account, summary: Summary) -> None:
        """Note what came of an account."""
        self.stages.pop(account.id, None)
        self.done[account.id] = summary


def _stage(state: Mapping[str, Any]) -> Stage:
    told = state["outcome"]
    counts = {name: int(told[name]) for name in _COUNTS}
    total = None if told["total"] is None else int(told["total"])
    outcome = ImportOutcome(**counts, total=total, first=bool(told["first"]))
    return Stage(outcome, bool(state["imported"]), int(state["embedded"]))


def _summary(state: Mapping[str, Any]) -> Summary:
    texts = {name: str(state[name]) for name in ("account", "line", "error") if name in state}
    return {**texts, "account": texts["account"], "imported": int(state["imported"])}
