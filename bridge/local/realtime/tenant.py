"""The one tenant that the stand-in serves: its limits, what it used of them, and the parts that serve it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .limits import RollingRate, TenantLimits

if TYPE_CHECKING:
    from .authorization import Authorizer
    from .changes import Changes
    from .fanout import Fanout
    from .replay import Replay
    from .socket import Socket
    from .tokens import TokenReader


@dataclass
class Usage:
    """Counters of what the tenant does, compared with its limits."""

    limits: TenantLimits
    clock: Callable[[], float] = time.monotonic
    events: RollingRate = field(default_factory=RollingRate)
    joins: RollingRate = field(default_factory=RollingRate)
    presence: RollingRate = field(default_factory=RollingRate)
    users: set[Socket] = field(default_factory=set)

    def count_events(self, count: int) -> bool:
        """Count sent and delivered messages; true when the tenant is over its rate."""
        now = self.clock()
        self.events.add(now, count)
        return self.events.average(now) >= self.limits.events_per_second

    @property
    def events_per_second(self) -> float:
        """The rolling average."""
        return self.events.average(self.clock())

    @property
    def has_too_many_joins(self) -> bool:
        """Whether sockets and channels open faster than the tenant may."""
        return self.joins.average(self.clock()) >= self.limits.joins_per_second

    @property
    def has_too_many_presences(self) -> bool:
        """Whether presence messages come faster than the tenant may send them."""
        return self.presence.average(self.clock()) > self.limits.presence_events_per_second

    @property
    def has_too_many_users(self) -> bool:
        """Whether no further socket may join."""
        return len(self.users) >= self.limits.users


@dataclass
class Tenant:
    """Everything a channel needs to know of the server around it."""

    limits: TenantLimits
    usage: Usage
    tokens: TokenReader
    exchange_key: Callable[[str], str]
    authorizer: Authorizer
    fanout: Fanout
    replay: Replay
    changes: Changes
