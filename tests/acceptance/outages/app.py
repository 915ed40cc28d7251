"""The acceptance app with a task that talks a lot."""

from __future__ import annotations

import time
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
