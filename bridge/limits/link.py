"""The limits' Redis as one worker sees it: its commands, whether it answers, what it was told is declared.

Whoever finds that it does not answer says so here; the pacer says when it does again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.limits.gates import quoted
from bridge.limits.scripts import LimitScripts
from bridge.settings import BridgeSettings

log = logging.getLogger(__name__)


class Link:
    """What the parts of one worker's limits share; `later` has the pacer's thread do something."""

    def __init__(
        self,
        settings: BridgeSettings,
        hostname: str,
        declared: Callable[[], Mapping[str, str]],
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self.settings = settings.limits
        self.worker = f"{quoted(hostname)}!{secrets.token_hex(4)}"
        self.url = settings.limits_redis_url
        seconds = self.settings.timeout.total_seconds()
        self.redis = Redis.from_url(
            self.url, socket_timeout=seconds, socket_connect_timeout=seconds,
            # The client's own would ask again in the consumer's loop, and hide that an answer was lost.
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        self.scripts = LimitScripts(self.redis, settings.outbox.prefix)
        self.later = later
        self.epoch = ""
        self.is_up = True
        self._declared = declared

    def declare(self) -> None:
        """Tell Redis what the code declares."""
        self.epoch, wait = self.scripts.declare(self._declared(), self.settings.lease, self.settings.grant)
        if wait:
            log.warning(
                "the limits' Redis knew nothing; limited runs wait %.1f s until it is known what is running",
                wait.total_seconds(),
            )

    def declare_if_forgotten(self) -> None:
        """Tell it again to a Redis that was emptied."""
        if self.scripts.epoch() != self.epoch:
            self.declare()

    def safely(self, action: Callable[[], Any]) -> None:
        """Do something that is not missed while Redis is away."""
        try:
            action()
        except RedisError as error:
            self.lost(error)

    def lost(self, error: RedisError) -> None:
        """Redis does not answer: nobody is let in until the pacer reaches it again."""
        if self.is_up:
            log.error("the limits' Redis does not answer (%s); limited runs wait", type(error).__name__)
        self.is_up = False

    def found(self) -> None:
        """Redis answers."""
        if not self.is_up:
            log.warning("the limits' Redis answers again")
            self.is_up = True
