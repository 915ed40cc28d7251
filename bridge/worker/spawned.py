"""Apps in pool processes that are fresh interpreters, as on macOS, where Celery makes the app anew."""

from __future__ import annotations

from typing import Any

from celery import Celery

from bridge.settings import BridgeSettings


def report_when_spawned(app: Celery, task_cls: Any, settings: BridgeSettings) -> None:
    """Have the app that Celery makes there, of what it packs up here, report as this one does."""

    def reduced(protocol: int) -> Any:
        keys = {**app.__reduce_keys__(), "task_cls": task_cls}
        return _made_again, (type(app), keys, settings)

    app.__reduce_ex__ = reduced


def _made_again(kind: type[Celery], keys: dict[str, Any], settings: BridgeSettings) -> Celery:
    from bridge.extension import Bridge

    app = kind(**{**keys, "set_as_current": False})
    Bridge(app, settings)
    return app
