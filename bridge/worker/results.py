"""In a pool process: results reach a Redis backend packed, by a connection of their own.

To store a result Celery asks for the one before it, then sets and tells it. By redis-py's client these two
round trips cost the process of a no-op task more than everything else it does.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from celery.backends.redis import RedisBackend
from redis import RedisError

from bridge.own_connection import OwnConnection


def store_packed(backend: Any) -> None:
    """Have a backend read and set single keys packed; what Redis does not answer so goes Celery's way."""
    if type(backend) is not RedisBackend:  # a Sentinel's, or the user's own, may find its server otherwise
        return
    connection = OwnConnection(backend.client)
    get, set_and_tell = backend.get, backend._set

    @wraps(get)
    def getting(key: str) -> Any:
        try:
            return connection.send([("GET", key)])[0]
        except RedisError:
            return get(key)

    @wraps(set_and_tell)
    def setting(key: str, value: Any, expires: int | None = None) -> None:
        seconds = backend.expires if expires is None else expires
        store = ("SETEX", key, seconds, value) if seconds else ("SET", key, value)
        try:
            connection.transact([store, ("PUBLISH", key, value)])
        except RedisError:
            set_and_tell(key, value, expires)

    backend.get, backend._set = getting, setting
