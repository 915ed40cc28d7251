"""What Celery's pools forget, or let go of, too early, kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from celery.bootsteps import RUN
from celery.utils import log
from celery.worker.state import active_requests


def remember_what_executes(pool: Any, dropped: Callable[[Collection[Any]], None]) -> None:
    """Keep jobs that a pool process was given, until they have ended, and tell of those that were dropped.

    Celery's `flush`, at each shutdown and loss of the broker's connection, forgets all whose start has not
    been heard of yet. What a process was given executes all the same: unseen, and once more when its message
    is delivered again; the shutdown waits half a minute for a process whose last result nobody reads. The
    others never execute, and nobody says so.
    """
    jobs = getattr(getattr(pool, "_pool", None), "_cache", None)
    flush = getattr(pool, "flush", None)
    if jobs is None or flush is None:  # no processes
        return

    def flushing() -> None:
        kept = tuple(jobs.values())
        for job in kept:
            if getattr(job, "_write_to", None) is not None:
                job._accepted = True
        flush()
        left = set(jobs.values())
        if gone := [job for job in kept if job not in left]:
            dropped(gone)

    pool.flush = flushing


def stop_what_was_given(consumer: Any) -> None:
    """Have a cold shutdown stop runs, too, that a pool process was given, once it says that they execute.

    Celery stops those whose start it has heard of, and waits for the end of the others, however late.
    """
    jobs = getattr(getattr(consumer.pool, "_pool", None), "_cache", None)
    cancel = consumer.cancel_active_requests
    if jobs is None:  # no processes
        return

    def cancelling() -> None:
        if (events := consumer.event_dispatcher) is not None:
            events.buffer_limit = math.inf  # sent under a lock, which who was interrupted may hold
        cancel()
        for job in tuple(jobs.values()):
            if getattr(job, "_write_to", None) is not None and not job.worker_pids():
                job._accept_callback = _one_after_the_other(job._accept_callback, cancel)

    consumer.cancel_active_requests = cancelling


def _one_after_the_other(accepted: Callable[..., None], cancel: Callable[[], None]) -> Callable[..., None]:
    def both(*args: Any) -> None:
        accepted(*args)
        cancel()

    return both


def stop_out_of_handlers(worker: Any) -> None:
    """Have the worker's loop stop its pool, and not the signal handler of a cold shutdown.

    That may have interrupted who was just reading a result. The process that sent it waits half a minute to
    see it counted, and the handler for that process; or it has interrupted who holds a lock that a run needs.
    """
    pool: Any = worker.pool
    stop, terminate = pool.stop, pool.terminate
    asked: list[bool] = []
    begun: list[bool] = []

    def stopping() -> None:
        if worker.blueprint.state == RUN or getattr(log, "_in_sighandler", False):
            asked.append(True)
            if pool.uses_semaphore and pool._pool is not None:
                pool._pool.close()  # nothing starts any more
        elif not begun:
            begun.append(True)
            stop()

    def terminating() -> None:
        if asked or not pool.uses_semaphore:
            stopping()
        terminate()

    pool.stop, pool.terminate = stopping, terminating


def wait_for_what_executes(worker: Any) -> None:
    """Have a worker that is stopped coldly, or softly, wait for runs that execute in its main process.

    Nothing can stop those as a child is stopped. Celery raises instead, wherever its signal handler
    interrupts the worker: a solo worker's body fails of it, and threads are left behind, to execute beside
    the second delivery of their messages. Greenlets it kills, takes for successes, and acks.
    """
    if not worker.pool.uses_semaphore:  # else they are in processes
        worker.wait_for_soft_shutdown = lambda: None
        worker.consumer.cancel_active_requests = _tell_that_it_waits


def _tell_that_it_waits() -> None:
    if count := len(active_requests):  # not by a logger, for its lock
        with suppress(OSError):
            os.write(2, f"worker: waits for {count} runs, which nothing can stop in this pool\n".encode())
