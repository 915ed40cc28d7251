"""The demo: the main job for several users at once, on the embedded stack; `celery -A tasks demo`."""
