"""Every change of the rows, as Postgres saw it, and workers that count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import psycopg
import pytest
import redis

from bridge.checkpoints import checkpoint_key
from bridge.local.running import RunningStack
from bridge.settings import BridgeSettings
from tests.acceptance.leftovers import own_settings
from tests.acceptance.limits.state import Sender

APP = "tests.acceptance.checkpoints.app"
LEASE = timedelta(seconds=4)  # a keeper that is not scheduled for three seconds does not lose it

_WATCH = """
create table public.test_shown (
  place bigserial, run uuid, attempt integer, status text, progress integer, current bigint, total bigint,
  message text);
create function public.test_note() returns trigger language plpgsql security definer as $$
begin
  insert into public.test_shown (run, attempt, status, progress, current, total, message)
    values (new.id, new.attempt, new.status, new.progress, new.current, new.total, new.message);
  return null;
end $$;
create trigger test_note after insert or update on public.processing_jobs
  for each row execute function public.test_note();
"""
_STOP = """
drop trigger test_note on public.processing_jobs;
drop function public.test_note;
drop table public.test_shown;
"""


class Shown(NamedTuple):
    """What a row said at some time."""

    attempt: int
    status: str
    progress: int
    current: int | None
    total: int | None
    message: str | None


class History:
    """All that the rows ever said."""

    def __init__(self, stack: RunningStack) -> None:
        self._url = stack.database_url

    def of(self, run: str) -> list[Shown]:
        columns = ", ".join(Shown._fields)
        rows = self._run(f"select {columns} from test_shown where run = %s order by place", run)
        return [Shown(*row) for row in rows]

    def last(self, run: str) -> Shown | None:
        shown = self.of(run)
        return shown[-1] if shown else None

    def is_final(self, run: str) -> bool:
        last = self.last(run)
        return last is not None and last.status in ("completed", "failed")

    def lines(self, run: str) -> list[str]:
        query = "select message from processing_job_logs where job_id = %s order by seq"
        return [message for (message,) in self._run(query, run)]

    def result(self, run: str) -> Any:
        ((result,),) = self._run("select result from processing_jobs where id = %s", run)
        return result

    def _run(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def kept(self) -> Iterator[History]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_WATCH)
            try:
                yield self
            finally:
                connection.execute(_STOP)


def falls(shown: list[Shown]) -> list[tuple[Shown, Shown]]:
    """Where the bar fell back."""
    return [(one, next_) for one, next_ in pairwise(shown) if next_.progress < one.progress]


class Post(Sender):
    """Sends runs of this app."""

    tasks = APP


@pytest.fixture(scope="module")
def history(stack: RunningStack) -> Iterator[History]:
    with History(stack).kept() as kept:
        yield kept


def frequent(settings: BridgeSettings) -> BridgeSettings:
    """Short leases, and reports that nothing holds back."""
    often = {"progress_interval": timedelta(milliseconds=1), "flush_interval": timedelta(milliseconds=10)}
    return settings.model_copy(
        update={
            "outbox": settings.outbox.model_copy(update=often),
            "limits": settings.limits.model_copy(update={"lease": LEASE}),
        }
    )


@pytest.fixture(scope="module")
def settings(stack: RunningStack) -> Iterator[BridgeSettings]:
    with own_settings(stack, "checkpoints") as made:
        yield frequent(made)


def kept(settings: BridgeSettings, run: str) -> dict[str, str]:
    """What Redis keeps of a run, and for how long."""
    with redis.Redis.from_url(settings.outbox.redis_url, decode_responses=True) as client:
        key = checkpoint_key(settings.outbox.prefix, run)
        found: dict[str, str] = client.hgetall(key)
        return {**found, "ttl": str(client.ttl(key))}
