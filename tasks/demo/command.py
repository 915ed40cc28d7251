"""The demo from start to end: stack, processes, imports side by side, and whether all promises were kept."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bridge.errors import TaskcastError
from tasks.demo.screen import Screen

if TYPE_CHECKING:
    from bridge.local.running import RunningStack
    from tasks.demo.show import Stage

_KEPT = Path(".taskcast")


def main(arguments: Sequence[str] | None = None, screen: Screen | None = None) -> int:
    """Run the demo; 0 when every promise was kept, 1 when not, 130 after Ctrl-C before the end."""
    options = _options(arguments)
    screen = screen or Screen(Console(highlight=False, width=None if sys.stdout.isatty() else 160))
    # As Ctrl-C, for which asyncio knows an orderly way out; a shell's `&` would have us ignore both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    verdict: list[str] | None = None

    def judged(problems: list[str]) -> None:
        nonlocal verdict
        verdict = problems

    try:
        with _stage(options, screen) as stage:
            from tasks.demo.show import show

            asyncio.run(show(stage, stay=not options.exit, judged=judged))
    except KeyboardInterrupt:
        screen.say("ended; no process is left behind")
        return 130 if verdict is None else _code(verdict)
    except (TaskcastError, ValueError, OSError) as error:
        screen.failure(f"demo: {error}")
        return 1
    return _code(verdict or [])


def _code(problems: Sequence[str]) -> int:
    return 1 if problems else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celery -A tasks demo",
        description="Import the accounts of several demo users side by side, on an embedded Supabase stack.",
        epilog="Ctrl-C ends it and every process it started.",
    )
    parser.add_argument("--exit", action="store_true", help="end after the imports; code 0 if all was well")
    parser.add_argument("--keep", action="store_true", help=f"keep the data in {_KEPT}/ between starts")
    parser.add_argument(
        "--recordings", type=Path, metavar="DIR", help="serve recorded exchanges of providers"
    )
    options = parser.parse_args(arguments)
    if options.recordings is not None and not options.recordings.is_dir():
        parser.error(f"--recordings {options.recordings}: there is no such directory")
    return options


@contextmanager
def _stage(options: argparse.Namespace, screen: Screen) -> Iterator[Stage]:
    with ExitStack() as exits:
        screen.title("starting the embedded stack, two worker pools, bridge and Flower")
        # Only now: these take a second to import, and the line above shows at once.
        from bridge.limits.control import assume_nothing_runs
        from bridge.local import Stack
        from bridge.local.ports import choose_port
        from config.settings import Settings
        from tasks.demo.fleet import fleet, members
        from tasks.demo.scene import own_scene, recorded_scene
        from tasks.demo.show import Stage

        scene = exits.enter_context(recorded_scene(options.recordings) if options.recordings else own_scene())
        data = _KEPT / "demo" if options.keep else None
        stack = exits.enter_context(Stack.running(data_dir=data, keep=options.keep))
        screen.started("embedded stack")
        crew = exits.enter_context(fleet(_KEPT))
        exits.callback(_ending, screen)
        environment = _environment(stack)
        os.environ.update(environment)
        assume_nothing_runs(Settings().bridge())  # its Redis has an address that nobody has known so far
        flower_port = choose_port(5555)
        for member in members(flower_port):
            crew.start(member, environment)
        login = f"user {environment['FLOWER_USER']}, password {environment['FLOWER_PASSWORD']}"
        yield Stage(stack, crew, scene, screen, f"http://127.0.0.1:{flower_port} ({login})")


def _ending(screen: Screen) -> None:
    # A second Ctrl-C would cut the end short.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    screen.say("ending the processes...")


def _environment(stack: RunningStack) -> dict[str, str]:
    return {
        "PYTHONPATH": os.getcwd(),
        "PYTHONUNBUFFERED": "1",
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
        "REDIS_URL": stack.redis_url,
        "LIMITS_REDIS_URL": stack.redis_url,
        "PROVIDERS_ALLOW_PRIVATE_HOSTS": "true",
        "FLOWER_USER": "demo",
        "FLOWER_PASSWORD": secrets.token_urlsafe(9),
    }
