"""Where one stack keeps its data, logs and sockets."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from bridge.errors import LocalStackError

DEFAULT_DATA_DIRECTORY = Path(".taskcast")


class Directories:
    """A runtime directory that ends with the stack, and a data directory that may outlive it.

    The runtime directory is always a short temporary path, since it holds sockets; without `keep` it
    holds everything.
    """

    def __init__(self, data: Path | None, *, keep: bool) -> None:
        self.kept = keep or data is not None
        self.runtime = Path(tempfile.mkdtemp(prefix="taskcast-"))
        self.runtime.chmod(0o755)  # the account Postgres steps down to passes through
        self.data = (data or DEFAULT_DATA_DIRECTORY).absolute() if self.kept else self.runtime
        self.logs = self.data / "logs"
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self.lock = _locked(self.data / "lock")
        except BaseException as error:
            shutil.rmtree(self.runtime)
            if isinstance(error, OSError):
                raise LocalStackError(
                    f"{self.data} cannot be used ({error.strerror}); choose another directory with --data-dir"
                ) from None
            raise
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(mode=0o700)

    def release(self) -> None:
        """Remove what ends with the stack and let another use the data."""
        shutil.rmtree(self.runtime, ignore_errors=True)
        os.close(self.lock)


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise LocalStackError(
            f"another stack uses {path.parent}; end it, or choose another directory with --data-dir"
        ) from None
    return lock
