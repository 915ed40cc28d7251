"""Workers to which things happen at the worst moment, if their environment says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.signals import worker_process_init
from kombu.transport.redis import Transport

DIES_TAKING: Final = "TASKCAST_TEST_DIES_TAKING"
"""Killed as it has taken a message that comes back, and has noted it nowhere."""

STARTS_LATE: Final = "TASKCAST_TEST_STARTS_LATE"
"""Its pool processes take nothing until this file is there."""


def at_chosen_moments(app: Celery) -> None:
    if DIES_TAKING in os.environ:
        die_taking()
    if file := os.environ.get(STARTS_LATE):
        app.conf.worker_proc_alive_timeout = 600
        start_late(Path(file))


def die_taking() -> None:
    deliver: Any = Transport._deliver  # type: ignore[attr-defined]

    def delivering(transport: Any, message: Any, queue: str) -> None:
        if message["headers"].get("redelivered"):
            os.killpg(0, signal.SIGKILL)
        deliver(transport, message, queue)

    Transport._deliver = delivering  # type: ignore[attr-defined]


def start_late(file: Path) -> None:
    def wait(**_: Any) -> None:
        while not file.exists():
            signal.sigtimedwait([], 0.02)

    worker_process_init.connect(wait, weak=False)
