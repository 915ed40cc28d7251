"""The restarts' app, whose workers keep back few events before they send them, as if many runs executed."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_ready

from tests.acceptance.restarts.app import app

__all__ = ["app"]


@worker_ready.connect
def send_early(sender: Any, **_: Any) -> None:
    sender.event_dispatcher.buffer_limit = 2
