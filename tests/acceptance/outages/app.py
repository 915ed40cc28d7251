"""The acceptance app with tasks that talk a lot."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from tests.acceptance.app import CHANNEL, app
from tests.acceptance.outages import LINES


@app.task(bind=True, channel=CHANNEL, public_result=True)
def chatty(self: Any, user_id: str, calls: int = 50, seconds: float = 0.3) -> dict[str, Any]:
    """Reports `calls` times, with some log lines; its result says how long it took."""
    start = time.monotonic()
    for call in range(calls):
        self.progress(call, calls, f"call {call}")
        if call % (calls // LINES) == 0:
            self.log(f"line {call // (calls // LINES) + 1}")
        time.sleep(seconds / calls)
    return {"seconds": round(time.monotonic() - start, 3)}


@app.task(bind=True, channel=CHANNEL, public_result=True)
def talking(self: Any, user_id: str, door: str, silence: float = 0.0) -> None:
    """Reports until the door is open, and never gets half way; then it is silent for so long, and ends."""
    for line in range(1, LINES + 1):
        self.log(f"line {line}")
    for call in itertools.count(1):
        if Path(door).exists():
            break
        self.progress(call, 1_000 + 2 * call, f"call {call}")
        time.sleep(0.005)
    time.sleep(silence)
