"""The run that executes here: `current_run()` reaches it from helper functions.

Outside of a worker a detached run stands in, whose calls check their arguments and do nothing.
"""

from __future__ import annotations

import math
import os
from contextvars import ContextVar
from typing import Any

from bridge.checkpoint import Checkpoint, Kept
from bridge.events import run_uuid
from bridge.lifecycle import Identity
from bridge.run import Run

_current: ContextVar[Run | None] = ContextVar("taskcast_run", default=None)


def current_run() -> Run | None:
    """The run whose body is executing here, or None outside of a worker."""
    return _current.get()


def detached_run() -> Run:
    """A run that goes nowhere: the progress API outside of a worker, as in a unit test of a body."""
    identity = Identity(run_id=run_uuid("detached"), root_id=run_uuid("detached"), task="detached")
    return Run(identity, 1, _Nowhere(), _Nowhere(), math.inf)


class _Nowhere:
    def mark(self, reporter: Any) -> None: ...

    def flush(self, reporter: Any) -> None: ...

    def settle(self, reporter: Any) -> None: ...

    def look(self, reporter: Any) -> None: ...

    def append(self, entries: Any) -> None: ...

    def fullness(self) -> float:
        return 0.0

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        return Kept()

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        return True


def enter(run: Run | None) -> None:
    """Make `run` the current one of this thread or greenlet."""
    _current.set(run)


def _forget_parent() -> None:
    run = _current.get()
    if run is not None:
        run.in_forked_child()


os.register_at_fork(after_in_child=_forget_parent)
