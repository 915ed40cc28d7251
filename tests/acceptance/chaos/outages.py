"""Parts of the deployment that are away for a while, crash, or hang."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import psycopg

from tests.acceptance.chaos.hits import Hit, Inject, Wait
from tests.acceptance.chaos.system import System


def redis_kill(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """SIGKILL; what it has written to its append-only file is there again."""
    seconds = chance.uniform(0.1, 2)
    yield f"for {seconds:.1f} s", list(system.places.values())
    system.redis.kill()
    try:
        wait(seconds)
    finally:
        system.redis.start()


def redis_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """It hangs: connections stay, nothing is answered."""
    seconds = chance.uniform(0.5, 4)
    yield f"for {seconds:.1f} s", list(system.places.values())
    system.redis.send(signal.SIGSTOP)
    try:
        wait(seconds)
    finally:
        system.redis.send(signal.SIGCONT)


def postgres_crash(system: System, _: random.Random, __: Wait) -> Iterator[Hit]:
    """SIGKILL to one of its processes, whereupon it ends all sessions and recovers."""
    with (
        suppress(psycopg.Error, psutil.NoSuchProcess),
        psycopg.connect(system.stack.database_url, connect_timeout=3) as connection,
    ):
        victim = psutil.Process(connection.info.backend_pid)
        yield "a session's process", system.bridges()
        victim.kill()


def restart(part: str) -> Inject:
    """A part of the stack ends and is started again after a while."""

    def inject(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
        seconds = chance.uniform(0.1, 3)
        yield f"for {seconds:.1f} s", system.bridges()
        with _away(system, part):
            wait(seconds)

    return inject


def gateway_stop(system: System, chance: random.Random, wait: Wait) -> Iterator[Hit]:
    """What answers for REST, Auth and Realtime hangs."""
    seconds = chance.uniform(0.5, 5)
    yield f"for {seconds:.1f} s", system.bridges()
    os.kill(system.stack.process.pid, signal.SIGSTOP)
    try:
        wait(seconds)
    finally:
        os.kill(system.stack.process.pid, signal.SIGCONT)


@contextmanager
def _away(system: System, part: str) -> Iterator[None]:
    system.stack.stop_part(part)
    try:
        yield
    finally:
        system.stack.start_part(part)
