"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import _state


@pytest.fixture(autouse=True)
def tasks_stay_in_their_test() -> Iterator[None]:
    """Celery hands the tasks of one app to every app that is made later in the process."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(before)
