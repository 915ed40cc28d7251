"""The keeper: a small process that renews a worker's lease in Redis, whatever the worker is doing.

The worker's main process may be stopped, or have a body that holds the GIL for minutes; its runs live,
and so must its lease. The keeper ends with the last process of its worker; see `bridge.limits.lifeline`.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.scripts import source

RENEWALS: Final = 5  # in the time of one lease

_FIRST_DELAY: Final = 0.1


class _Lease:
    """The lease, as its process renews it."""

    def __init__(self, url: str, key: str, worker: str, lease: int) -> None:
        self._redis = _connected(url, lease / 1000 / RENEWALS)
        self._script = self._redis.register_script(source("renew_worker"))
        self._key, self._worker, self._lease = key, worker, lease
        self._failures = 0
        self._held = False

    def keep(self, ended: Callable[[float], bool]) -> None:
        """Renew until `ended(seconds to wait)`, then give the lease up."""
        while not ended(self._renewed()):
            pass
        # Past one lease there is nothing left to give up.
        until = time.monotonic() + self._lease / 1000
        while (delay := self._given_up()) and time.monotonic() < until:
            time.sleep(delay)

    def _renewed(self) -> float:
        try:
            known = self._script(keys=[self._key], args=[self._worker, self._lease])
        except Exception as error:  # whatever it is: the next renewal may succeed
            return self._failed(error)
        if self._failures:
            self._say("Redis is back")
        if self._held and not known:
            self._say("Redis did not know this worker: it was emptied, or took the worker for dead")
        self._failures, self._held = 0, True
        return self._lease / 1000 / RENEWALS

    def _given_up(self) -> float:
        try:
            # Added if need be: runs may have been admitted before the first renewal.
            self._redis.zadd(self._key, {self._worker: 0})
        except Exception as error:
            return self._failed(error)
        return 0.0

    def _failed(self, error: Exception) -> float:
        if not self._failures:  # the name alone: a text may quote the URL
            self._say(f"Redis does not renew the lease ({type(error).__name__}); trying on")
        # Below the pace: a lease that ran out meanwhile has to be back before others judge it.
        delay = min(self._lease / 1000 / RENEWALS / 2, _FIRST_DELAY * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return delay * random.uniform(0.5, 1.0)

    def _say(self, text: str) -> None:
        _say(f"{self._worker}: {text}")


def _connected(url: str, timeout: float) -> Redis:
    client = Redis.from_url(url)
    # Set afterwards, as the URL's own options would win. The client's own retries would outlast a lease.
    own = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
    client.connection_pool.connection_kwargs.update(own)
    return client


def _say(text: str) -> None:
    """One line to stderr, or nothing: neither a full pipe nor a closed one may end the renewals."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"taskcast keeper: {text}\n".encode())
    except OSError:
        pass


def _pipe_ended(seconds: float) -> bool:
    """Whether the last writer of the pipe is gone; waits so long for that."""
    deadline = time.monotonic() + seconds
    while True:
        if not select.select([0], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        if not os.read(0, 65536):
            return True


def _settings() -> dict[str, Any] | None:
    line = b""
    while not line.endswith(b"\n"):
        select.select([0], [], [])
        if not (read := os.read(0, 65536)):
            return None
        line += read
    settings: dict[str, Any] = json.loads(line)
    return settings


def main() -> None:
    """Keep the lease that stdin names until stdin ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a warm shutdown may take hours
    if (settings := _settings()) is None:
        return
    try:
        lease = _Lease(**settings)
    except ValueError as error:
        _say(f"the Redis URL cannot be used ({type(error).__name__})")
        sys.exit(1)
    lease.keep(_pipe_ended)


if __name__ == "__main__":
    main()
