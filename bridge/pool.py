"""What Celery's prefork pool forgets too early, kept."""

from __future__ import annotations

from typing import Any


def remember_what_executes(pool: Any) -> None:
    """Keep jobs that a pool process was given, until they have ended.

    Celery's `flush`, at each shutdown and loss of the broker's connection, forgets those whose start has not
    been heard of yet. They execute all the same: unseen, and once more when their messages are delivered
    again; the shutdown waits half a minute for a process whose last result nobody reads.
    """
    jobs = getattr(getattr(pool, "_pool", None), "_cache", None)
    flush = getattr(pool, "flush", None)
    if jobs is None or flush is None:  # no processes
        return

    def flushing() -> None:
        for job in tuple(jobs.values()):
            if getattr(job, "_write_to", None) is not None:
                job._accepted = True
        flush()

    pool.flush = flushing
