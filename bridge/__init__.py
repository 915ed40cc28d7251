"""Mirror every state and progress change of Celery runs into Supabase rows and Realtime channels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.current import current_run
    from bridge.errors import (
        ArgumentError,
        DeclarationError,
        PayloadTooLarge,
        PublicError,
        SettingsError,
        TaskcastError,
    )
    from bridge.extension import Bridge
    from bridge.limits import Limit, Rate
    from bridge.limits.fence import LeaseLost
    from bridge.run import Run
    from bridge.settings import BridgeSettings

__all__ = [
    "ArgumentError",
    "Bridge",
    "BridgeSettings",
    "DeclarationError",
    "LeaseLost",
    "Limit",
    "PayloadTooLarge",
    "PublicError",
    "Rate",
    "Run",
    "SettingsError",
    "TaskcastError",
    "current_run",
]

_HOMES = {
    "Bridge": "extension",
    "BridgeSettings": "settings",
    "LeaseLost": "limits.fence",
    "Limit": "limits",
    "Rate": "limits",
    "Run": "run",
    "current_run": "current",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the embedded stack and the tests of pure modules need no Celery.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bridge.{_HOMES.get(name, 'errors')}"), name)
