"""A run that tells the time, so that the demo can say how long a progress call takes to arrive."""

from __future__ import annotations

import time
from typing import Any

from tasks.celery import app

CHANNEL = "demo-probe-{user_id}"


@app.task(bind=True, name="tasks.demo.probe", channel=CHANNEL)
def probe(self: Any, user_id: str, reports: int = 13, every: float = 0.4) -> None:
    """Report the time of each call as the message."""
    for number in range(reports):
        self.progress(number, reports, f"{time.time():.6f}")
        time.sleep(every)
