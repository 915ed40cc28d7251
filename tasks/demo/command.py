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
from typing import NoReturn

from rich.console import Console

from bridge.errors import TaskcastError
from bridge.local import Stack
from bridge.local.ports import choose_port
from bridge.local.running import RunningStack
from tasks.demo.fleet import fleet, members
from tasks.demo.scene import own_scene, recorded_scene
from tasks.demo.screen import Stopwatch
from tasks.demo.show import Stage, show

_KEPT = Path(".taskcast")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every promise was kept, 1 when not, 130 after Ctrl-C before the end."""
    options = _options(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, _interrupted)
    done = False
    try:
        with _everything(options, console) as stage:
            problems = asyncio.run(show(stage, stay=not options.exit))
            done = True
    except KeyboardInterrupt:
        console.print("ended; no process is left behind")
        return 0 if done else 130
    except (TaskcastError, ValueError, OSError) as error:
        console.print(f"demo: {error}", markup=False, style="red")
        return 1
    return 1 if problems else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="celery -A tasks demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end after the imports; code 0 if all was well")
    parser.add_argument("--keep", action="store_true", help=f"keep the data in {_KEPT}/ between starts")
    parser.add_argument(
        "--recordings", type=Path, metavar="DIR", help="serve recorded exchanges of providers"
    )
    options = parser.parse_args(arguments)
    if options.recordings is not None and not options.recordings.is_dir():
        parser.error(f"--recordings {options.recordings}: there is no such directory")
    return options


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _everything(options: argparse.Namespace, console: Console) -> Iterator[Stage]:
    with ExitStack() as exits:
        console.print(
            "[bold]taskcast demo[/]: starting Redis, Postgres, PostgREST, Realtime, workers, bridge, Flower"
        )
        watch = Stopwatch(console)
        data = _KEPT / "demo" if options.keep else None
        stack = exits.enter_context(Stack.running(data_dir=data, keep=options.keep))
        watch.lap("embedded stack")
        scene = exits.enter_context(recorded_scene(options.recordings) if options.recordings else own_scene())
        logs = _KEPT / "logs"
        crew = exits.enter_context(fleet(logs))
        environment = _environment(stack)
        os.environ.update(environment)
        flower_port = choose_port(5555)
        crew_members = members(flower_port)
        for member in crew_members:
            crew.start(member, environment)
        for member in crew_members:
            crew.await_ready(member)
            watch.lap(member.name)
        flower = (
            f"http://127.0.0.1:{flower_port} ({os.environ['FLOWER_USER']}, {environment['FLOWER_PASSWORD']})"
        )
        yield Stage(stack, crew, scene, console, flower)


def _environment(stack: RunningStack) -> dict[str, str]:
    return {
        "PYTHONPATH": os.getcwd(),
        "PYTHONUNBUFFERED": "1",
        "SUPABASE_URL": stack.url,
        "SUPABASE_SECRET_KEY": stack.secret_key,
        "REDIS_URL": stack.redis_url,
        "PROVIDERS_ALLOW_PRIVATE_HOSTS": "true",
        "FLOWER_USER": "demo",
        "FLOWER_PASSWORD": secrets.token_urlsafe(9),
    }
