"""The worker's side of its keeper, the process in `bridge.limits.keeper` that renews the worker's lease.

The keeper learns from its stdin that it may end: a pipe whose writing end only the worker's main process
and its forked pool processes hold.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Any, Final, NoReturn

from bridge.limits.keeper import RENEWALS
from bridge.scripts import milliseconds

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
_STOPS_WITHIN: Final = 2.0


class Lifeline:
    """A worker's keeper and the pipe to it; made before the pool, which inherits the pipe.

    >>> lifeline = Lifeline("redis://localhost", "tasks:limits:workers", "w1@host", timedelta(seconds=15))
    """

    def __init__(self, redis_url: str, key: str, worker: str, lease: timedelta) -> None:
        settings = {"url": redis_url, "key": key, "worker": worker, "lease": milliseconds(lease)}
        self._line = json.dumps(settings).encode() + b"\n"
        self._pace = lease.total_seconds() / RENEWALS
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[FileIO, FileIO] | None = None
        self._spawned_at = 0.0
        self._main_pid: int | None = None

    def start(self) -> None:
        """Start the process; does not wait for its first renewal."""
        self._main_pid = os.getpid()
        read, write = os.pipe()
        # Files, as they close at once; gevent's `os.close` waits for its loop.
        self._pipe = FileIO(read, "rb"), FileIO(write, "wb")
        self._spawn(*self._pipe)

    def ensure(self) -> bool:
        """Start the process again if it died; returns whether it lived. Not for use beside `stop`."""
        process, pipe = self._process, self._pipe
        if process is None or pipe is None or process.poll() is None:
            return process is not None
        if time.monotonic() - self._spawned_at < self._pace:
            return False  # one that cannot live at all is not started over and over
        log.warning("the keeper of this worker's lease ended with %s; starting another", process.returncode)
        try:
            self._spawn(*pipe)
        except OSError as error:
            log.error("the keeper of this worker's lease cannot be started (%s)", error.strerror)
        return False

    def stop(self) -> None:
        """Let the process end; it stays for as long as pool processes do."""
        process, self._process = self._process, None
        self._close()
        if process is not None:
            try:
                process.wait(_STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                log.info("the keeper stays until the last process of this worker has ended")

    def in_pool_process(self) -> None:
        """For `worker_process_init`: end this process with its parent, though not in the midst of a run.

        Celery has Linux kill pool processes with their parent, where it finds glibc. Elsewhere idle ones
        would wait for ever, as each holds the pipes of the others open, and would keep the lease.
        """
        self.keep_from_forks()
        parent = os.getppid() if self._main_pid is None else self._main_pid
        if parent == os.getpid():  # the solo pool
            return
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)
        if not _killed_with_parent():
            _end_with(parent)

    def keep_from_forks(self) -> None:
        """Let later forks of this process not count: for processes that execute runs, not for a pool's own.

        A body's own forks, such as those of `multiprocessing`, can outlive a killed worker for ever.
        """
        os.register_at_fork(after_in_child=self._close)

    def _spawn(self, read: FileIO, write: FileIO) -> None:
        # The same pipe for each process, as pool processes hold on to the first one; the parent keeps the
        # reading end for that. What a process left unread when it died must not fill the pipe.
        os.set_blocking(read.fileno(), False)  # each time: gevent's Popen makes it blocking
        while read.read(65536):
            pass
        self._spawned_at = time.monotonic()
        write.write(self._line)
        # A session of its own: signals to the worker's group or from its terminal are not for the keeper.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bridge.limits.keeper"], stdin=read, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _import_path()}, start_new_session=True,
        )  # fmt: skip

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            end.close()


def _import_path() -> str:
    """Where this process imports from; celery takes the working directory off once it has loaded the app."""
    places = [os.path.abspath(place or os.curdir) for place in sys.path]
    home = str(Path(__file__).parent.parent)
    return os.pathsep.join(places if home in places else [*places, home])


# In a pool process


def _killed_with_parent() -> bool:
    from billiard.util import get_pdeathsig

    try:
        return bool(get_pdeathsig())
    except OSError:
        return False


def _end_with(parent: int) -> None:
    """End this process when `parent` has ended and no run executes here."""
    from celery.signals import task_postrun, task_prerun

    executing: set[str] = set()
    idle = threading.Event()
    idle.set()

    def begun(task_id: str, **_: Any) -> None:
        executing.add(task_id)
        idle.clear()

    def ended(task_id: str, **_: Any) -> None:
        executing.discard(task_id)
        if not executing:  # a body may call other tasks in place
            idle.set()

    def watch() -> NoReturn:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        idle.wait()
        os._exit(1)

    task_prerun.connect(begun, weak=False)
    task_postrun.connect(ended, weak=False)  # last, after what others have to tell of the run
    threading.Thread(target=watch, name="taskcast-parent", daemon=True).start()
