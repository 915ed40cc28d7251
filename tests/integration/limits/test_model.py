"""Random histories of the commands behind limits: Redis decides as a plain model, and keeps its promises.

`TASKCAST_LIMIT_HISTORIES=20000` plays so many, `TASKCAST_LIMIT_SEED=7` others than usual.
"""

from __future__ import annotations

import os
import random

import pytest
from redis import Redis

from tests.integration.limits.histories import STEPS, History, Steps

HISTORIES = int(os.environ.get("TASKCAST_LIMIT_HISTORIES", "2000"))
SEED = int(os.environ.get("TASKCAST_LIMIT_SEED", "0"))
LONGEST = 60  # steps


@pytest.mark.timeout(180 + HISTORIES)
def test_in_any_history_redis_decides_as_the_model_does_and_keeps_its_promises(redis: Redis) -> None:
    for number in range(HISTORIES):
        seed = f"{SEED}:{number}"
        chosen = random.Random(seed)
        choice = chosen.getrandbits(14)
        steps = [
            (chosen.choice(STEPS), chosen.getrandbits(8), chosen.getrandbits(8), chosen.getrandbits(8))
            for _ in range(chosen.randint(5, LONGEST))
        ]
        if failure := broken(redis, choice, steps):
            few, failure = shortest(redis, choice, steps, failure)
            told = "\n".join(f"  {step.__name__} {others}" for step, *others in few)
            raise AssertionError(f"history {seed}, choice {choice}:\n{told}\n{failure!r}") from failure


def broken(redis: Redis, choice: int, steps: Steps) -> Exception | None:
    """What goes wrong in a history, if anything."""
    try:
        History(redis, choice).play(steps)
    except Exception as error:
        return error
    return None


def shortest(redis: Redis, choice: int, steps: Steps, failure: Exception) -> tuple[Steps, Exception]:
    """Leaves out steps as long as something goes wrong without them."""
    size = len(steps) // 2
    while size:
        place = 0
        while place < len(steps):
            fewer = steps[:place] + steps[place + size :]
            if error := broken(redis, choice, fewer):
                steps, failure = fewer, error
            else:
                place += size
        size //= 2
    return steps, failure
