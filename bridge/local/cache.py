"""Where downloaded and copied binaries stay between starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bridge.local.privileges import Account

# Root's home is closed to others; this directory is for root alone to write and for all to read.
_SYSTEM_CACHE = Path("/var/cache/taskcast")
_SYSTEM_STATE = Path("/var/lib/taskcast")


def cache_directory() -> Path:
    """The user's cache directory for this project."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "taskcast"
    base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "taskcast"


def shared_cache_directory(account: Account) -> Path:
    """A cache directory that `account` can read too."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    return cache if account.reaches(cache) else _made(_SYSTEM_CACHE)


def shared_state_directory() -> Path:
    """Where root keeps the data of accounts that cannot reach the directory asked for."""
    return _made(_SYSTEM_STATE)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    return directory
