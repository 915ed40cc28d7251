"""Celery's own configuration for this deployment; each line that is not a default says why."""

from __future__ import annotations

from kombu import Queue  # type: ignore[attr-defined]

from config.settings import settings

broker_url = settings().redis_url
result_backend = settings().redis_url
result_expires = 3600
result_backend_always_retry = True  # or a run that ends while Redis starts again has failed

imports = ("tasks.import_socials.workflow",)
task_default_queue = "default"
task_queues = tuple(Queue(name, routing_key=name) for name in ("default", "io", "ai"))  # type: ignore[no-untyped-call]
task_routes = {
    "tasks.import_socials.import_socials": {"queue": "io"},
    "tasks.import_socials.fetch_account": {"queue": "io"},
    "tasks.import_socials.classify_account": {"queue": "ai"},
    "tasks.import_socials.gather_topics": {"queue": "ai"},
}

# JSON only: a message must never be code.
task_serializer = result_serializer = "json"
accept_content = ["json"]

# A run whose worker dies is done again; the body's own checkpoints and upserts make that harmless.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1

task_track_started = True
task_send_sent_event = True
worker_send_task_events = True  # Flower

broker_connection_retry_on_startup = True
broker_transport_options = {"visibility_timeout": 6 * 3600}
enable_utc = True
