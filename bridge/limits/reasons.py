"""Why a run waits, in a sentence for its user."""

from __future__ import annotations

from typing import Final

from bridge.limits.gates import Gate

_SENTENCES: Final = {
    "rate": "Waiting: as many as may start in this time have started.",
    "task": "Waiting: runs of this task are paused.",
    "limit": "Waiting: paused for the moment.",
    "start": "Waiting until it is known what is running.",
}


def reason(gate: str) -> str:
    """What a closed gate means to the user of a run that stands there.

    >>> reason("slots|tasks.import_socials|")
    'Waiting for a free slot.'
    """
    kind, _, key = Gate.read(gate)
    if kind == "slots":
        return "Waiting for an earlier run to end." if key else "Waiting for a free slot."
    return _SENTENCES[kind]
