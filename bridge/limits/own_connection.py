"""A connection kept for the commands that every limited run needs: a third of what a client's call costs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from hiredis import pack_command
from redis import Redis
from redis.exceptions import NoScriptError

_IDLE: Final = 0.1


class OwnConnection:
    """Calls scripts on a connection that no pool lends out; who finds it taken goes by the client.

    Nothing is called twice: that would hide that the answer to the first call was lost.
    """

    def __init__(self, redis: Redis, idle: float = _IDLE) -> None:
        self._redis, self._idle = redis, idle
        self._taken = threading.Lock()
        self._connection: Any = None
        self._pid = 0
        self._used_at = 0.0

    def call(self, script: Any, arguments: Sequence[Any]) -> Any:
        """The reply of a registered script, whose only key is the first of the arguments.

        Raises:
            RedisError: as the client does.
        """
        if self._taken.acquire(blocking=False):
            try:
                return self._call(script.sha, arguments)
            except NoScriptError:  # the client brings it
                pass
            finally:
                self._taken.release()
        return script(keys=arguments[:1], args=arguments[1:])

    def _call(self, sha: str, arguments: Sequence[Any]) -> Any:
        connection = self._ready()
        try:
            connection.send_packed_command([pack_command(("EVALSHA", sha, 1, *arguments))], False)
            return connection.read_response()
        except BaseException:  # a reply that is still to come must not be taken for the next one
            connection.disconnect()
            raise

    def _ready(self) -> Any:
        if self._pid != os.getpid():  # the socket of a fork is its parent's
            self._connection = self._redis.connection_pool.make_connection()
            self._pid = os.getpid()
        now, used_at = time.monotonic(), self._used_at
        self._used_at = now
        if now - used_at >= self._idle and self._is_closed():
            self._connection.disconnect()
        return self._connection

    def _is_closed(self) -> bool:
        """Whether Redis has closed the connection since it was used last."""
        try:
            return bool(self._connection.is_connected and self._connection.can_read())
        except Exception:
            return True
