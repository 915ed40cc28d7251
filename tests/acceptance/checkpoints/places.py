"""Where the bodies of the app come by."""

from __future__ import annotations

ITEMS = 100
EVERY = 10
"""Items between two checkpoints."""

SHOWN = 57
"""How far the bar is when the first execution is interrupted; its checkpoint is at 50."""

HELD = 75
"""Where the second one waits for the test."""
