"""Commands that `celery -A <app>` gains: bridge, watch, local, demo; limits is in `bridge.limits.cli`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click
from celery import Celery
from celery.bin.base import CeleryCommand

from bridge.errors import TaskcastError
from bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from bridge.extension import Bridge

T = TypeVar("T")

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(invoke_without_command=True)
@click.pass_context
def bridge(context: click.Context) -> None:
    """Run the bridge: outbox to Supabase rows and Realtime Broadcast; `bridge dead`: what it set apart."""
    if context.invoked_subcommand is not None:
        return
    from bridge.publisher import process

    settings = _settings(context)
    _log_to_stderr()
    or_one_line(lambda: process.run(settings, bridge_of(context)))


@bridge.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def dead(context: click.Context, as_json: bool) -> None:
    """List the run events that can never be written: each with its reason."""
    from bridge.publisher import dead_commands

    context.obj = dead_commands.DeadCommands(bridge_of(context).settings.outbox)
    if context.invoked_subcommand is None:
        or_one_line(lambda: context.obj.list(as_json))


@dead.command()
@click.argument("dead_id", metavar="ID")
@click.pass_context
def show(context: click.Context, dead_id: str) -> None:
    """Show one of them whole, what is not printable escaped."""
    or_one_line(lambda: context.obj.show(dead_id))


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that there are now.")
@click.pass_context
def replay(context: click.Context, ids: tuple[str, ...], everything: bool) -> None:
    """Hand them to the bridge again, as old as they are: nothing newer is taken back."""
    _need_one_of(ids, everything)
    or_one_line(lambda: context.obj.replay(ids))


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that there are now.")
@click.pass_context
def drop(context: click.Context, ids: tuple[str, ...], everything: bool) -> None:
    """Forget them for good."""
    _need_one_of(ids, everything)
    or_one_line(lambda: context.obj.drop(ids))


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
    or_one_line(lambda: follow.run(settings, channel, as_json=as_json))


@click.command(cls=CeleryCommand, context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def local(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run Redis, Postgres, REST, Auth and Realtime on this machine; --help tells the options."""
    try:
        from bridge.local.cli import main
    except ModuleNotFoundError as error:
        stop(f"the embedded stack needs {error.name}: pip install 'taskcast[local]'")
    sys.exit(main(arguments, lambda endpoints: _nothing_runs(context, endpoints.redis_url)))


@click.command(cls=CeleryCommand, context_settings=_PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the application's demo, the package `demo` beside its Celery app."""
    name = f"{app_of(context).main}.demo"
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # the app is no package
        found = None
    if found is None:
        stop(f"this application has no demo ({name})")
    # A process of its own: the demo starts what the app's settings name, before it loads the app.
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])  # noqa: S606


def _nothing_runs(context: click.Context, redis_url: str) -> None:
    """Limited runs need not wait on a Redis whose address nobody has known so far."""
    from bridge.limits.control import assume_nothing_runs

    found: Bridge | None = getattr(app_of(context), "bridge", None)
    if found is None:
        return
    settings = found.settings
    outbox = settings.outbox.model_copy(update={"redis_url": redis_url})
    limits = settings.limits.model_copy(update={"redis_url": redis_url})
    assume_nothing_runs(settings.model_copy(update={"outbox": outbox, "limits": limits}))


def app_of(context: click.Context) -> Celery:
    """The app of `celery -A`."""
    app: Celery = context.obj.app
    return app


def bridge_of(context: click.Context) -> Bridge:
    """The app's bridge; without one the command ends."""
    found: Bridge | None = getattr(app_of(context), "bridge", None)
    if found is None:
        stop("this app has no bridge: write Bridge(app, settings) after app = Celery(...)")
    return found


def _settings(context: click.Context) -> BridgeSettings:
    settings = bridge_of(context).settings
    if settings.supabase is None:
        stop("set SUPABASE_URL and SUPABASE_SECRET_KEY (sb_secret_...), in the environment or .env")
    return settings


def _need_one_of(ids: tuple[str, ...], everything: bool) -> None:
    if bool(ids) == everything:
        raise click.UsageError("name the entries by their ids, or all of them with --all")


def or_one_line(action: Callable[[], T]) -> T:
    """What the action returns; an error of ours ends the command with its one line."""
    try:
        return action()
    except TaskcastError as error:
        stop(str(error))


def stop(line: str) -> NoReturn:
    """End the command with this line and exit code 1."""
    click.echo(f"taskcast: {line}", err=True)
    sys.exit(1)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "websockets", "realtime"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
