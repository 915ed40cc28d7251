"""What `celery -A <app> bridge dead` does: prints to stdout, and fails with one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from bridge.errors import TaskcastError
from bridge.publisher.dead import DEAD_LENGTH, DeadEntries, described, table
from bridge.settings import OutboxSettings

T = TypeVar("T")


class OutboxAway(TaskcastError):
    """Redis did not answer, or refused."""

    def __init__(self, url: str, error: RedisError) -> None:
        parts = urlsplit(url)  # the address may hold a password
        address = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        super().__init__(
            f"no answer from Redis at {address} ({type(error).__name__}); is REDIS_URL that of the workers?"
        )


class DeadCommands:
    """One method a command.

    Raises:
        OutboxAway, UnknownDeadEntry
    """

    def __init__(self, settings: OutboxSettings) -> None:
        self._url = settings.redis_url
        seconds = settings.timeout.total_seconds()
        redis = Redis.from_url(self._url, socket_timeout=seconds, socket_connect_timeout=seconds)
        self._dead = DeadEntries(redis, settings)

    def list(self, as_json: bool) -> None:
        entries = self._asked(lambda: list(self._dead))
        if as_json:
            _print(json.dumps(each.summary()) for each in entries)
        elif entries:
            _print(table(entries))
            _print(
                [f"{len(entries)} of at most {DEAD_LENGTH}: show ID, replay ID or --all, drop ID or --all"]
            )
        else:
            _print(["no dead entries"])

    def show(self, dead_id: str) -> None:
        _print(described(self._asked(lambda: self._dead.get(dead_id))))

    def replay(self, ids: Sequence[str]) -> None:
        count = self._asked(lambda: self._dead.replay(self._dead.named(ids)))
        _print([f"replayed: {count}; what fails again comes back with its reason"])

    def drop(self, ids: Sequence[str]) -> None:
        count = self._asked(lambda: self._dead.drop(self._dead.named(ids)))
        _print([f"dropped: {count}"])

    def _asked(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except RedisError as error:
            raise OutboxAway(self._url, error) from error


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
