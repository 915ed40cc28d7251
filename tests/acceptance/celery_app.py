"""The Celery app of the acceptance tests' workers, which each folder gives tasks of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from celery import Celery

from bridge import Bridge, BridgeSettings
from tests.processes import BROKER, SETTINGS


def celery_app(
    name: str,
    transport: Mapping[str, Any] | None = None,
    queue: str = "default",
    is_current: bool = True,
    **conf: Any,
) -> Celery:
    """A bridged app on the settings of the environment, its keys in Redis below their prefix.

    `transport` comes on top of the broker's transport options, `conf` on top of the rest.
    """
    settings = BridgeSettings.model_validate_json(os.environ[SETTINGS])
    url, prefix = os.environ.get(BROKER, settings.outbox.redis_url), f"{settings.outbox.prefix}-"
    app = Celery(name, broker=url, backend=url, set_as_current=is_current)
    app.conf.update(
        task_default_queue=f"{prefix}{queue}",
        broker_transport_options={"global_keyprefix": prefix, **(transport or {})},
        result_backend_transport_options={"global_keyprefix": prefix},
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
    )
    app.conf.update(conf)
    Bridge(app, settings)
    return app


def returning_soon(after: float) -> dict[str, Any]:
    """Transport options with which messages of killed workers come back soon, by the broker's own means.

    Also copies of those whose runs live. `after` is in seconds, unless the environment says otherwise.
    """
    return {
        "visibility_timeout": float(os.environ.get("TASKCAST_TEST_VISIBILITY", after)),
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it restores holds this lock for 5 minutes unless told otherwise.
        "unacked_mutex_expire": 2,
    }
