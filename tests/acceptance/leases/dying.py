"""Workers that are killed at the worst moment: they have taken a message, and noted it nowhere."""

from __future__ import annotations

import os
import signal
from typing import Any, Final

from kombu.transport.redis import Transport

DIES_TAKING: Final = "TASKCAST_TEST_DIES_TAKING"


def die_taking() -> None:
    """Have this worker killed as it takes a message that comes back, if its environment says so."""
    deliver: Any = Transport._deliver  # type: ignore[attr-defined]

    def delivering(transport: Any, message: Any, queue: str) -> None:
        if message["headers"].get("redelivered"):
            os.killpg(0, signal.SIGKILL)
        deliver(transport, message, queue)

    if DIES_TAKING in os.environ:
        Transport._deliver = delivering  # type: ignore[attr-defined]
