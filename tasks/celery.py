"""The Celery app of this deployment: `celery -A tasks worker`, `bridge`, `watch`, `flower`, `local`."""

from __future__ import annotations

from celery import Celery

from bridge import Bridge
from config.settings import settings

app = Celery("tasks")
app.config_from_object("config.celeryconfig")
Bridge(app, settings().bridge())
