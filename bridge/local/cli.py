"""The command behind `celery -A tasks local` and `python -m bridge.local`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge.errors import LocalStackError
from bridge.local.endpoints import Endpoints
from bridge.local.realtime import TenantLimits
from bridge.local.stack import Stack

WhenReady = Callable[[Endpoints], None]


def main(argv: Sequence[str] | None = None, when_ready: WhenReady = lambda _: None) -> int:
    """Run the stack until Ctrl-C; return the exit code: 0, or 1 with the error on stderr.

    `when_ready` is called when all parts answer, before anybody is told where.
    """
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("bridge.local").setLevel(logging.INFO)
    try:
        asyncio.run(_run(options, when_ready))
    except LocalStackError as error:
        print(f"local stack: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


async def _run(options: argparse.Namespace, when_ready: WhenReady) -> None:
    asked_to_end = _asked_to_end(with_stdin=options.end_with_stdin)
    stack = Stack(options.data_dir, options.port, options.keep, options.tenant, options.migrations)
    running = asyncio.create_task(_serve(stack, when_ready, as_json=options.json))
    await asyncio.wait({running, asked_to_end}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        return


async def _serve(stack: Stack, when_ready: WhenReady, *, as_json: bool) -> None:
    async with stack:
        told = stack.endpoints
        when_ready(told)
        print(json.dumps(told.as_json()) if as_json else told.as_table(), flush=True)
        await stack.wait()


def _asked_to_end(*, with_stdin: bool) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[None] = loop.create_future()

    def ask() -> None:
        if not asked.done():
            asked.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ask)
    if with_stdin:
        loop.add_reader(sys.stdin.fileno(), _at_end_of_stdin, ask)
    return asked


def _at_end_of_stdin(ask: Callable[[], None]) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ask()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="celery -A <app> local",
        description="Run Redis, Postgres, REST, Auth and Realtime on this machine until Ctrl-C.",
    )
    parser.add_argument(
        "--port", type=_port, help="port of the API; by default 54321, or a free one when taken"
    )
    parser.add_argument("--keep", action="store_true", help="keep the data between starts")
    parser.add_argument("--data-dir", type=Path, help="where to keep the data; by default .taskcast")
    parser.add_argument(
        "--migrations", type=_directory, action="append", default=[], metavar="DIR",
        help="one more directory of migrations",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one line of JSON when ready, for programs")
    parser.add_argument("--tenant", type=_tenant, default=TenantLimits(), help=argparse.SUPPRESS)
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return Path(text)


def _tenant(text: str) -> TenantLimits:
    given: dict[str, Any] = json.loads(text)
    for field in fields(TenantLimits):
        if field.name in given and isinstance(field.default, timedelta):
            given[field.name] = timedelta(seconds=given[field.name])
    return TenantLimits(**given)
