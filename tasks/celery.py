"""The Celery app of this deployment: `celery -A tasks worker`, `bridge`, `watch`, `flower`, `local`."""

from __future__ import annotations

import logging

from celery import Celery

from bridge import Bridge
from config.settings import settings

# It logs every address it asks, and private feeds carry their password in theirs.
logging.getLogger("httpx").setLevel(logging.WARNING)

app = Celery("tasks")
app.config_from_object("config.celeryconfig")
Bridge(app, settings().bridge())
