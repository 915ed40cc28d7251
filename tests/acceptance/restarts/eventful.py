"""The restarts' app, whose workers send events soon, as if many runs executed, and tell when they do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from tests.acceptance.limits.ledger import LEDGER
from tests.acceptance.restarts.app import app

__all__ = ["app"]


@worker_ready.connect
def send_early(sender: Any, **_: Any) -> None:
    dispatcher = sender.event_dispatcher
    dispatcher.buffer_limit = 2
    publish = dispatcher._publish

    def telling(event: Any, *args: Any, **kwargs: Any) -> Any:
        note = tell if isinstance(event, dict) and event["type"] == "worker-heartbeat" else len
        note("begins")
        sent = publish(event, *args, **kwargs)
        note("ends")
        return sent

    dispatcher._publish = telling


def tell(moment: str) -> None:
    """Note that a heartbeat is being sent, or has been."""
    with Path(os.environ[LEDGER]).with_name(f"{moment}-heartbeats").open("a") as file:
        file.write("heartbeat\n")
