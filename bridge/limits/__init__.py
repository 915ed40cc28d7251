"""Leases and limits: which runs may execute, where, and until when; decided in Redis by Lua commands."""

from bridge.limits.declared import Limit, Rate

__all__ = ["Limit", "Rate"]
