"""A connection kept for the commands that every limited run needs: a third of what a client's call costs."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from redis import ConnectionError, Redis
from redis.exceptions import NoScriptError


class OwnConnection:
    """Calls scripts on a connection that no pool lends out; who finds it taken or broken goes by the client.

    The client brings a new connection, its retries, and the script where Redis has forgotten it.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._taken = threading.Lock()
        self._connection: Any = None
        self._pid = 0

    def call(self, script: Any, arguments: Sequence[Any]) -> Any:
        """The reply of a registered script, whose only key is the first of the arguments.

        Raises:
            RedisError: as the client does.
        """
        if self._taken.acquire(blocking=False):
            try:
                return self._call(script.sha, arguments)
            except (ConnectionError, NoScriptError):
                pass
            finally:
                self._taken.release()
        return script(keys=arguments[:1], args=arguments[1:])

    def _call(self, sha: str, arguments: Sequence[Any]) -> Any:
        if self._pid != os.getpid():  # the socket of a fork is its parent's
            self._connection = self._redis.connection_pool.make_connection()
            self._pid = os.getpid()
        connection = self._connection
        try:
            connection.send_packed_command(connection.pack_command("EVALSHA", sha, 1, *arguments), False)
            return connection.read_response()
        except BaseException:  # a reply that is still to come must not be taken for the next one
            connection.disconnect()
            raise
