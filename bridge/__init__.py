"""Mirror every state and progress change of Celery runs into Supabase rows and Realtime channels."""

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
from bridge.run import Run, current_run
from bridge.settings import BridgeSettings

__all__ = [
    "ArgumentError",
    "Bridge",
    "BridgeSettings",
    "DeclarationError",
    "Limit",
    "PayloadTooLarge",
    "PublicError",
    "Rate",
    "Run",
    "SettingsError",
    "TaskcastError",
    "current_run",
]
