"""The embedded stack: starts, supervises and ends its parts."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bridge.errors import LocalStackError, PartCrashed
from bridge.local import database
from bridge.local.auth import Auth
from bridge.local.cache import cache_directory
from bridge.local.control import Control
from bridge.local.directories import Directories
from bridge.local.endpoints import Endpoints, HasEndpoints
from bridge.local.gateway import Gateway
from bridge.local.keys import Keys
from bridge.local.lifeline import Lifeline
from bridge.local.ports import LOOPBACK, choose_port, listen
from bridge.local.postgres import Postgres
from bridge.local.processes import Process
from bridge.local.realtime import Realtime, TenantLimits
from bridge.local.redis import Redis
from bridge.local.rest import Rest, find_postgrest
from bridge.local.running import RunningStack

CLI_PORT = 54321  # where `supabase start` answers


class Part(Protocol):
    """What can be stopped and started again."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Stack(HasEndpoints):
    """Redis, Postgres, PostgREST, Auth and Realtime behind one origin.

    >>> async with Stack() as stack:
    ...     print(stack.url, stack.anon_key)

    `data_dir` or `keep` keep the data (in `.taskcast/` by default); `port` insists on a port, else 54321 is
    taken when free. Starting raises LocalStackError; a part that ends by itself later makes `wait()` raise
    PartCrashed with its log.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        keep: bool = False,
        tenant: TenantLimits | None = None,
        migrations: Sequence[Path] = (),
        keys: Keys | None = None,
    ) -> None:
        self._data_dir, self._keep, self._port = data_dir, keep, port
        self._tenant = tenant or TenantLimits()
        self._migrations = migrations
        self._keys = keys or Keys()
        self._parts: dict[str, Part] = {}
        self._stopped: set[str] = set()
        self._exit = AsyncExitStack()
        self._crash: asyncio.Future[None] | None = None

    @classmethod
    def running(
        cls,
        data_dir: Path | None = None,
        port: int | None = None,
        keep: bool = False,
        tenant: TenantLimits | None = None,
        migrations: Sequence[Path] = (),
    ) -> AbstractContextManager[RunningStack]:
        """The same stack as a child process, for code that has no event loop."""
        return RunningStack.started(data_dir, port, keep, tenant or TenantLimits(), migrations)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            await self._start(undo)
            self._exit = undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def wait(self) -> None:
        """Return never; raise PartCrashed when a part ends by itself."""
        assert self._crash is not None, "the stack has not been started"
        await asyncio.shield(self._crash)

    async def stop_part(self, name: str) -> None:
        """Rehearse an outage of "redis", "postgres", "rest" or "realtime"."""
        part = self._part(name)
        if name in self._stopped:
            raise LocalStackError(f"{name} is stopped already")
        self._stopped.add(name)
        self._gateway.down |= self._stopped & {"realtime"}
        await part.stop()

    async def start_part(self, name: str) -> None:
        """End the outage of a part."""
        part = self._part(name)
        if name not in self._stopped:
            raise LocalStackError(f"{name} is running already")
        await part.start()
        self._stopped.discard(name)
        self._gateway.down.discard(name)

    async def _start(self, undo: AsyncExitStack) -> None:
        crash = self._crash = asyncio.get_running_loop().create_future()
        # Nobody waits for it any more: asyncio would complain of an exception that was never retrieved.
        undo.callback(lambda: crash.cancel() or crash.exception())
        listener = _listener(self._port)
        undo.callback(listener.close)
        directories = Directories(self._data_dir, keep=self._keep)
        undo.callback(directories.release)
        lifeline = Lifeline(remove=directories.runtime, hold=directories.lock)
        undo.push_async_callback(asyncio.to_thread, lifeline.end)
        control = Control(directories.runtime / "control.sock", self.stop_part, self.start_part)

        def process(name: str) -> Process:
            return Process(name, directories.logs / f"{name}.log", lifeline, self._crashed)

        redis = Redis(process("redis"), directories.data / "redis", keep=directories.kept)
        postgres = Postgres(process("postgres"), directories.data / "postgres", keep=directories.kept)
        self._parts = {"redis": redis, "postgres": postgres}
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        self.endpoints = self._told(url, postgres.url(), redis.url, control.path, directories.logs)
        _, _, postgrest = await _together(
            _started(redis, undo), self._database_ready(postgres, undo), find_postgrest(cache_directory())
        )
        self._gateway = await self._services(
            postgres, process("rest"), postgrest, directories.runtime / "rest.sock", undo
        )
        await self._gateway.start(listener)
        undo.push_async_callback(self._gateway.stop)
        await control.start()
        undo.push_async_callback(control.stop)

    async def _database_ready(self, postgres: Postgres, undo: AsyncExitStack) -> None:
        await _started(postgres, undo)
        await database.prepare(postgres.url(over_tcp=False), self._migrations)

    async def _services(
        self, postgres: Postgres, process: Process, postgrest: Path, rest_socket: Path, undo: AsyncExitStack
    ) -> Gateway:
        """Start what stands between the gateway and the database."""
        keys = self._keys
        rest = Rest(process, postgrest, postgres.url("authenticator", over_tcp=False), rest_socket, keys)
        realtime = Realtime(postgres.url("supabase_admin"), keys.jwt_secret, self._tenant, keys.exchange)
        auth = Auth(
            postgres.url("supabase_auth_admin", over_tcp=False), keys, f"{self.endpoints.url}/auth/v1"
        )
        self._parts |= {"rest": rest, "realtime": realtime}
        await _together(*(_started(part, undo) for part in (rest, realtime, auth)))
        return Gateway(keys, rest.socket, auth, realtime)

    def _told(self, url: str, database_url: str, redis_url: str, control: Path, logs: Path) -> Endpoints:
        return Endpoints(
            url=url,
            database_url=database_url,
            redis_url=redis_url,
            anon_key=self._keys.anon,
            service_key=self._keys.service,
            publishable_key=self._keys.publishable,
            secret_key=self._keys.secret,
            jwt_secret=self._keys.jwt_secret,
            control=str(control),
            logs=str(logs),
            pid=os.getpid(),
        )

    def _part(self, name: str) -> Part:
        if name not in self._parts:
            raise LocalStackError(f"no part is called {name!r}; the parts are {', '.join(self._parts)}")
        return self._parts[name]

    def _crashed(self, crash: PartCrashed) -> None:
        if self._crash is not None and not self._crash.done():
            self._crash.set_exception(crash)


async def _started(part: Part, undo: AsyncExitStack) -> None:
    # Registered first: a part that fails half way through its start is stopped too.
    undo.push_async_callback(part.stop)
    await part.start()


async def _together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run the steps side by side; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step) for step in steps]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _listener(port: int | None) -> socket.socket:
    if port is None:
        return listen(choose_port(CLI_PORT))
    try:
        return listen(port)
    except OSError as error:
        raise LocalStackError(
            f"port {port} cannot be used ({error.strerror}); choose another or none at all"
        ) from None
