"""Sends the load, as app code would, and revokes what is to be revoked."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from celery import uuid

from bridge.events import FINAL_STATUSES
from tests.acceptance.chaos.journal import now
from tests.acceptance.chaos.kinds import KINDS, Sent, choose

APP = "tests.acceptance.chaos.app"
REVOKE_EVERY = 1.0


class Load:
    """A stream of runs from a seed.

    Args:
        status: what the rows say of a run; a user who sees that it was not cancelled asks again.
        most: no more runs than this are alive at once.
    """

    def __init__(
        self,
        seed: int,
        users: Sequence[str],
        rate: float,
        status: Callable[[str], str | None],
        most: int = 60,
    ) -> None:
        self.sent: list[Sent] = []
        self._chance, self._users, self._rate, self._most = random.Random(seed), users, rate, most
        self._status, self._over, self._ended = status, threading.Event(), threading.Event()
        self._tasks: Any = import_module(APP)
        # Results of chords hold each other, and would look for Redis when it has gone.
        self._tasks.app.backend.remove_pending_result = lambda result: result
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._revoke)]

    def start(self) -> None:
        self._tasks.app.bridge.limits.pause(f"{APP}.held")
        for thread in self._threads:
            thread.start()

    def stop_sending(self) -> None:
        self._over.set()
        self._threads[0].join()

    def end(self) -> None:
        self.stop_sending()
        self._ended.set()
        self._threads[1].join()
        self._tasks.app.bridge.close()
        self._tasks.app.close()

    def alive(self) -> list[Sent]:
        """Those that the rows do not show as ended."""
        return [each for each in self.sent if self._status(each.run) not in FINAL_STATUSES]

    def _send(self) -> None:
        while not self._over.wait(self._chance.expovariate(self._rate)):
            kind, beats = choose(self._chance)
            user = self._chance.choice(self._users)
            if len(self.alive()) < self._most:
                self._send_one(kind, beats, user)

    def _send_one(self, name: str, beats: int, user: str) -> None:
        kind, run, at = KINDS[name], uuid(), now()
        task = getattr(self._tasks, kind.task)
        try:
            # Nobody here asks for results, except that a chord's are added up.
            task.apply_async((user, beats), task_id=run, ignore_result=not kind.parts, **kind.options)
        except Exception as error:  # kombu's and redis-py's own, whichever came through
            print(f"  the dispatch of {run} failed: {type(error).__name__}", flush=True)
            self.sent.append(Sent(run, name, user, beats, at, doubtful=True))
        else:
            self.sent.append(Sent(run, name, user, beats, at))

    def _revoke(self) -> None:
        while not self._ended.wait(REVOKE_EVERY):
            waiting = [each.run for each in self.alive() if KINDS[each.kind].revoked]
            try:
                if waiting:
                    self._tasks.app.control.revoke(waiting)
            except Exception as error:
                print(f"  revoking failed, it is done again: {type(error).__name__}", flush=True)
