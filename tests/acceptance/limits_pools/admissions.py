"""When runs were let in, by the clock of the Redis that did it: their bodies start some time after."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import redis

from tests.waiting import wait_until

_LET_IN = re.compile(r":limits:run:([0-9a-f-]+):\d+:\d+ state (?:held|granted) ")


class Admissions:
    """What Redis does, watched for as long as the block runs."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._first: dict[str, float] = {}

    @contextmanager
    def watched(self) -> Iterator[Admissions]:
        over, begun = secrets.token_hex(8), threading.Event()
        thread = threading.Thread(target=self._watch, args=(over, begun))
        thread.start()
        try:
            wait_until(begun.is_set, "Redis tells what it does")
            yield self
        finally:
            self._client.echo(over)
            thread.join()

    def of(self, runs: Collection[str]) -> list[float]:
        """The seconds at which these were let in, in order; a retry is not counted."""
        wait_until(lambda: self._first.keys() >= set(runs), "all are seen")
        return sorted(self._first[run] for run in runs)

    def _watch(self, over: str, begun: threading.Event) -> None:
        with self._client.monitor() as monitor:
            begun.set()
            for told in monitor.listen():
                if over in told["command"]:
                    return
                if let_in := _LET_IN.search(told["command"]):
                    self._first.setdefault(let_in[1], told["time"])


def closest(times: list[float], count: int) -> float:
    """The shortest time in which `count` were let in after another one."""
    return min((later - first for first, later in zip(times, times[count:], strict=False)), default=1e9)
