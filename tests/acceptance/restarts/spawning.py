"""The restarts' app, whose pool processes are fresh interpreters, as they are on macOS and Windows."""

from __future__ import annotations

from tests.acceptance.restarts.app import app

__all__ = ["app"]

app.conf.worker_pool_start_method = "spawn"
