"""A connection kept for the commands that every run needs: a third of what a client's call costs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from hiredis import pack_command
from redis import Redis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

_IDLE: Final = 0.1

Command = tuple[Any, ...]
"""A command of Redis and its arguments: texts, bytes and numbers."""


class OwnConnection:
    """Sends commands on a connection that no pool lends out; who finds it taken goes by the client."""

    def __init__(self, redis: Redis, idle: float = _IDLE) -> None:
        self._redis, self._idle = redis, idle
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._taken = threading.Lock()
        self._connection: Any = None
        self._used_at = 0.0

    def call(self, script: Any, arguments: Sequence[Any]) -> Any:
        """The reply of a registered script, whose only key is the first of the arguments.

        Nothing is called twice: that would hide that the answer to the first call was lost.

        Raises:
            RedisError: as the client does.
        """
        if self._take():
            try:
                return self._exchange([("EVALSHA", script.sha, 1, *arguments)])[0]
            except NoScriptError:  # the client brings it
                pass
            finally:
                self._taken.release()
        return script(keys=arguments[:1], args=arguments[1:])

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands that are sent together, and once more where the connection was cut.

        Raises:
            RedisError: as the client does, once all have been answered.
        """
        if self._take():
            try:
                return self._exchange_again(commands)
            finally:
                self._taken.release()
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipe.execute()

    def transact(self, commands: Sequence[Command]) -> list[Any]:
        """As `send`, of commands that are executed all or none, with nobody's in between."""
        replies: list[Any] = self.send([("MULTI",), *commands, ("EXEC",)])[-1]
        _raise_first(replies)
        return replies

    def _take(self) -> bool:
        if self._pid != os.getpid():  # the socket is the parent's, a thread of which may hold the lock
            self._reset()
        return self._taken.acquire(blocking=False)

    def _exchange_again(self, commands: Sequence[Command]) -> list[Any]:
        was_open = self._connection is not None and self._connection.is_connected
        try:
            return self._exchange(commands)
        except ConnectionError:
            if not was_open:
                raise
            return self._exchange(commands)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._ready()
        try:
            connection.send_packed_command([b"".join(map(pack_command, commands))], False)
            replies = [_reply(connection) for _ in commands]
        except BaseException:  # a reply that is still to come must not be taken for the next one
            connection.disconnect()
            raise
        _raise_first(replies)
        return replies

    def _ready(self) -> Any:
        if self._connection is None:
            self._connection = self._redis.connection_pool.make_connection()
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


def _raise_first(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
