"""What the limits' Redis knows, and a plain Celery app that sends runs and looks at their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from celery import Celery

from bridge.settings import BridgeSettings


class Books:
    """The limits as Redis has them."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis, self._root = client, f"{prefix}:limits:"

    def holders(self) -> set[str]:
        """All holders of all slots."""
        found: set[str] = set()
        for key in self._redis.scan_iter(f"{self._root}slots:*"):
            found |= {raw.decode() for raw in self._redis.zrange(key, 0, -1)}  # type: ignore[union-attr]
        return found

    def held(self) -> set[str]:
        """All holders by worker."""
        found: set[str] = set()
        for key in self._redis.scan_iter(f"{self._root}held:*"):
            found |= {raw.decode() for raw in self._redis.hkeys(key)}  # type: ignore[union-attr]
        return found

    def waiting(self) -> int:
        keys = list(self._redis.scan_iter(f"{self._root}line:*"))
        return sum(int(self._redis.zcard(key)) for key in keys)  # type: ignore[arg-type]

    def workers(self) -> set[str]:
        return {raw.decode() for raw in self._redis.zrange(f"{self._root}workers", 0, -1)}  # type: ignore[union-attr]

    def is_idle(self) -> bool:
        """No slot is held, nobody waits, no grant is on its way."""
        grants = int(self._redis.zcard(f"{self._root}grants"))  # type: ignore[arg-type]
        return not self.holders() and not self.held() and not self.waiting() and not grants

    def mentions(self, run: str) -> list[str]:
        """The keys of all of Redis that hold a run's id, in whatever form."""
        return sorted(key.decode() for key in self._redis.scan_iter() if run.encode() in self._dump(key))

    def _dump(self, key: bytes) -> bytes:
        reads: dict[bytes, Callable[[bytes], Any]] = {
            b"string": self._redis.get,
            b"list": lambda key: self._redis.lrange(key, 0, -1),
            b"set": self._redis.smembers,
            b"zset": lambda key: self._redis.zrange(key, 0, -1),
            b"hash": self._redis.hgetall,
            b"stream": self._redis.xrange,
        }
        kind: Any = self._redis.type(key)
        return key + repr(reads[kind](key) if kind in reads else "").encode()


class Sender:
    """Sends runs as a process that has none of this code would: by name."""

    tasks = "tests.acceptance.limits.app"

    def __init__(self, settings: BridgeSettings, broker: str | None = None) -> None:
        prefix = settings.outbox.prefix
        url = broker or settings.outbox.redis_url
        self.app = Celery("sender", broker=url, backend=url, set_as_current=False)
        self.app.conf.update(
            task_default_queue=f"{prefix}-default",
            broker_transport_options={"global_keyprefix": f"{prefix}-"},
            result_backend_transport_options={"global_keyprefix": f"{prefix}-"},
        )

    def send(self, task: str, *args: Any, **options: Any) -> str:
        return str(self.app.send_task(f"{self.tasks}.{task}", args, **options).id)

    def signature(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"{self.tasks}.{task}", args, **options)

    def start(self, canvas: Any) -> str:
        """Send a chain or a chord; the id of its last run."""
        # Its results hold each other, and would look for Redis when it has gone.
        self.app.backend.remove_pending_result = lambda result: result
        return str(canvas.delay().id)

    def state(self, run: str) -> str:
        return str(self.app.AsyncResult(run).state)

    def close(self) -> None:
        self.app.close()
