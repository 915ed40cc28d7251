"""The message budget: how much may be sent now without passing what the project's plan allows."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Tokens that come back at `rate` a second, at most one second's worth in store.

    >>> bucket = TokenBucket(rate=100)
    >>> bucket.available()
    100.0
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = rate
        self._tokens = rate
        self._at = clock()

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._refill()
        self._rate = rate
        self._tokens = min(self._tokens, rate)

    def available(self) -> float:
        """Tokens that can be taken now."""
        self._refill()
        return self._tokens

    def take(self, tokens: float) -> None:
        """Spend tokens; more than there are makes a debt that is paid back first."""
        self._refill()
        self._tokens -= tokens

    def empty(self) -> None:
        """Forget what is in store: the other side counts differently than we do."""
        self._refill()
        self._tokens = min(self._tokens, 0.0)

    def delay(self, tokens: float) -> float:
        """Seconds until this many tokens are there; what can never be there is waited for as a full store."""
        return max(0.0, (min(tokens, self._rate) - self.available()) / self._rate)

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
