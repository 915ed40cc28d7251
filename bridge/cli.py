"""Commands that `celery -A <app>` gains: bridge, watch, local, demo."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar

import click
from celery import Celery
from celery.bin.base import CeleryCommand

from bridge.errors import TaskcastError
from bridge.settings import BridgeSettings

T = TypeVar("T")

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(cls=CeleryCommand)
@click.pass_context
def bridge(context: click.Context) -> None:
    """Run the bridge: outbox to Supabase rows and Realtime Broadcast."""
    from bridge import publisher

    settings = _settings(context)
    _log_to_stderr()
    _or_one_line(lambda: publisher.run(settings))


@click.command(cls=CeleryCommand)
@click.argument("channel")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def watch(context: click.Context, channel: str, as_json: bool) -> None:
    """Follow CHANNEL in the terminal, such as import-socials-<user>."""
    from bridge import watch as follow

    if not channel.strip():
        raise click.BadParameter(
            "is empty; name a channel, such as import-socials-<user>", param_hint="CHANNEL"
        )

    settings = _settings(context)
    _or_one_line(lambda: follow.run(settings, channel, as_json=as_json))


@click.command(cls=CeleryCommand, context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def local(arguments: tuple[str, ...]) -> None:
    """Run Redis, Postgres, REST, Auth and Realtime on this machine; --help tells the options."""
    try:
        from bridge.local.cli import main
    except ModuleNotFoundError as error:
        _stop(f"the embedded stack needs {error.name}: pip install 'taskcast[local]'")
    sys.exit(main(arguments))


@click.command(cls=CeleryCommand, context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the application's demo, the package `demo` beside its Celery app."""
    name = f"{_app(context).main}.demo"
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # the app is no package
        found = None
    if found is None:
        _stop(f"this application has no demo ({name})")
    # A process of its own: the demo starts what the app's settings name, before it loads the app.
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])  # noqa: S606


def _app(context: click.Context) -> Celery:
    app: Celery = context.obj.app
    return app


def _settings(context: click.Context) -> BridgeSettings:
    found: Any = getattr(_app(context), "bridge", None)
    if found is None:
        _stop("this app has no bridge: write Bridge(app, settings) after app = Celery(...)")
    settings: BridgeSettings = found.settings
    if settings.supabase is None:
        _stop("set SUPABASE_URL and SUPABASE_SECRET_KEY (sb_secret_...), in the environment or .env")
    return settings


def _or_one_line(action: Callable[[], T]) -> T:
    try:
        return action()
    except TaskcastError as error:
        _stop(str(error))


def _stop(line: str) -> NoReturn:
    click.echo(f"taskcast: {line}", err=True)
    sys.exit(1)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "websockets", "realtime"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
