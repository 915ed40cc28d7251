"""`celery -A <app> limits`: what is limited and who waits, and changes while everything runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli import app_of, bridge_of, or_one_line

if TYPE_CHECKING:
    from bridge.limits.control import LimitControl
    from bridge.limits.survey import KeyState, LimitState

_HEADING: Final = ("name", "kind", "in force", "used", "waiting", "oldest wait", "paused")
_NUMBERS: Final = {3, 4, 5}
_WIDEST: Final = 60
_CLEAR: Final = "\x1b[H\x1b[J"
_KEY = click.option("--key", help="One key only, as the list shows it.")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for each limit.")
@click.option("--watch", is_flag=True, help="Again each second, until Ctrl-C.")
@click.option(
    "--keys", default=5, show_default=True, type=click.IntRange(0, 1000), help="Keys of each limit."
)
@click.pass_context
def limits(context: click.Context, as_json: bool, watch: bool, keys: int) -> None:
    """List limits and rates: what is in force, used, waiting; or change them.

    Changes are kept in Redis: every worker goes by them at once, and they outlast restarts. What
    executes is never ended by them.
    """
    if context.invoked_subcommand is not None:
        return
    control = _control(context)
    render = _as_json if as_json else _as_table
    if not watch:
        click.echo(or_one_line(lambda: render(control.survey(keys))))
        return
    with suppress(KeyboardInterrupt):
        _follow(lambda: render(control.survey(keys)))


@limits.command("set")
@click.argument("name")
@click.argument("value")
@click.pass_context
def set_(context: click.Context, name: str, value: str) -> None:
    """Put VALUE in force for the limit NAME: slots such as 5, or a rate such as 100/1m."""
    from bridge.limits.values import read_value, written

    def change() -> None:
        new = read_value(value)
        before = _control(context).set(name, new)
        click.echo(f"{name}: {written(new)} in force, was {written(before)}")

    or_one_line(change)


@limits.command()
@click.argument("name")
@click.pass_context
def reset(context: click.Context, name: str) -> None:
    """Put the declared value of the limit NAME in force again."""
    changed = or_one_line(lambda: _control(context).reset(name))
    click.echo(f"{name}: the declared value is in force{' again' if changed else ', as it was'}")


@limits.command()
@click.argument("target")
@_KEY
@click.option("--for", "how_long", help="Such as 10m; without it until it is resumed.")
@click.pass_context
def pause(context: click.Context, target: str, key: str | None, how_long: str | None) -> None:
    """Let no run of TARGET start: a task, a limit or a rate by its name."""
    from bridge.limits.values import read_time, written_time

    def change() -> None:
        time = None if how_long is None else read_time(how_long)
        is_new = _control(context).pause(target, time, **_key(key))
        how = "until it is resumed" if time is None else f"for {written_time(time)}"
        told = f"is paused {how}" if is_new else f"was paused already, {how} or longer"
        click.echo(f"{_named(target, key)} {told}")

    or_one_line(change)


@limits.command()
@click.argument("target")
@_KEY
@click.pass_context
def resume(context: click.Context, target: str, key: str | None) -> None:
    """Let the runs of TARGET go on."""
    ended = or_one_line(lambda: _control(context).resume(target, **_key(key)))
    click.echo(f"{_named(target, key)} {'goes on' if ended else 'was not paused'}")


def _control(context: click.Context) -> LimitControl:
    control = bridge_of(context).limits
    app_of(context).loader.import_default_modules()  # a worker's first step: all that the app declares
    return control


def _key(key: str | None) -> dict[str, Any]:
    return {} if key is None else {"key": key}


def _named(target: str, key: str | None) -> str:
    return target if key is None else f"{target}, key {_plain(key)},"


def _follow(look: Callable[[], str]) -> None:
    """Show it anew each second; an outage is told once and waited out."""
    from bridge.limits.control import LimitsUnavailable

    away = ""
    while True:
        try:
            shown, away = look(), ""
            click.echo((_CLEAR if sys.stdout.isatty() else "") + shown)
            sys.stdout.flush()
        except LimitsUnavailable as error:
            if str(error) != away:
                click.echo(f"taskcast: {error}", err=True)
            away = str(error)
        time.sleep(1)


def _as_json(states: Sequence[LimitState]) -> str:
    return "\n".join(json.dumps({"at": datetime.now(UTC).isoformat(), **_object(state)}) for state in states)


def _object(state: LimitState | KeyState) -> dict[str, Any]:
    from bridge.limits.declared import Rate

    members: dict[str, Any] = {}
    for name in state.__slots__:
        value = getattr(state, name)
        if isinstance(value, Rate):
            value = {"count": value.count, "per_seconds": value.per.total_seconds()}
        elif name == "keys":
            value = [_object(key) for key in value]
        elif name in ("oldest_wait", "resumes_in"):
            name, value = f"{name}_seconds", None if value is None else value.total_seconds()
        elif name == "key":
            value = _plain(value)
        members[name] = value
    return members


def _as_table(states: Sequence[LimitState]) -> str:
    if not states:
        return "no limit is declared, and no task is paused"
    rows = [_HEADING, *(row for state in states for row in _rows(state))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if place in _NUMBERS else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def _rows(state: LimitState) -> Iterator[Sequence[str]]:
    name = "(a Redis that knows nothing yet)" if state.kind == "start" else _cut(state.name)
    yield (name, state.kind, _value(state), *_counts(state))
    for key in state.keys:
        yield (f"  {_cut(key.key)}", "", "", *_counts(key))
    if state.more_keys:
        yield (f"  {state.more_keys} more keys" if state.keys else f"  {state.more_keys} keys", *[""] * 6)


def _value(state: LimitState) -> str:
    from bridge.limits.values import written

    if state.kind not in ("slots", "rate"):
        return ""
    told = written(state.in_force) + (" each" if state.is_split else "")
    return told if state.in_force == state.declared else f"{told} (declared {written(state.declared)})"


def _counts(state: LimitState | KeyState) -> tuple[str, ...]:
    used = "" if state.used is None else str(state.used)
    return used, str(state.waiting), _time(state.oldest_wait), _pause(state.paused, state.resumes_in)


def _time(time: timedelta | None) -> str:
    from bridge.limits.values import rough_time

    return "" if time is None else rough_time(time)


def _pause(paused: bool, resumes_in: timedelta | None) -> str:
    if not paused:
        return ""
    return "until resumed" if resumes_in is None else f"{_time(resumes_in)} more"


def _cut(text: str) -> str:
    from bridge.text import shorten

    return shorten(_plain(text), _WIDEST)


def _plain(text: str) -> str:
    """Text that came from outside: secrets taken out, what a terminal would obey written out."""
    from bridge.text import public

    printable = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return public("".join(printable))
