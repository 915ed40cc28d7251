"""The restarts' app, whose workers tell how many Redis clients they have made."""

from __future__ import annotations

from itertools import count
from typing import Any

import redis
from celery.worker.control import inspect_command

from tests.acceptance.restarts.app import app

__all__ = ["app"]

_numbers = count()
_make = redis.Redis.__init__


def _counted(self: Any, *args: Any, **kwargs: Any) -> None:
    next(_numbers)
    _make(self, *args, **kwargs)


redis.Redis.__init__ = _counted  # type: ignore[method-assign]


@inspect_command()  # type: ignore[untyped-decorator]
def clients_made(state: Any) -> int:
    return next(_numbers)
