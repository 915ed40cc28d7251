"""Settings as values: what a `Bridge` and its processes need, passed in, never looked up here."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

DEPLOYMENT: Final = "default"

PositiveTime = Annotated[timedelta, Field(gt=timedelta(0))]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SupabaseSettings(_Settings):
    """Where the Supabase project answers, and the key of its service role."""

    url: str
    key: SecretStr

    @field_validator("url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, such as https://<project>.supabase.co")
        parts = urlsplit(url)
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must be the project's address alone, such as https://<project>.supabase.co")
        if parts.username is not None:
            raise ValueError("must not hold a user or a password")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _is_a_service_key(cls, key: SecretStr) -> SecretStr:
        raw = key.get_secret_value()
        if not (raw.isascii() and raw.isprintable()) or " " in raw:
            # No header can carry it, and the HTTP library's complaint would show it in the logs.
            raise ValueError("has a blank, a line break or another character that no key has; copy it anew")
        if key.get_secret_value().startswith("sb_publishable_"):
            raise ValueError("is the publishable key; the bridge needs the secret key (sb_secret_...)")
        return key


class OutboxSettings(_Settings):
    """The durable stream of run events in Redis."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    prefix: str = Field(default="taskcast", pattern=r"^[a-z0-9:_-]{1,60}$")
    partitions: int = Field(default=8, ge=1, le=256)
    max_length: int = Field(default=200_000, ge=1_000, description="entries of one partition")
    flush_interval: PositiveTime = timedelta(milliseconds=50)
    progress_interval: PositiveTime = Field(
        default=timedelta(milliseconds=300), description="least time between two progress entries of a run"
    )
    timeout: PositiveTime = Field(
        default=timedelta(seconds=2), description="the longest a state change waits for Redis"
    )
    buffered_runs: int = Field(default=10_000, ge=100, description="runs kept in memory while Redis is away")
    checkpoint_ttl: PositiveTime = timedelta(days=7)


class BroadcastSettings(_Settings):
    """Realtime Broadcast: who may listen, and how much the project's plan lets us send."""

    private: bool = True
    messages_per_second: int = Field(
        default=100, ge=1, description="the plan's figure: 100 free, 500 pro, 2500 uncapped"
    )
    listeners: int = Field(
        default=1, ge=0, description="deliveries expected of each message; they count against the plan"
    )
    batch: int = Field(default=50, ge=1, le=500, description="messages in one REST call at most")


class PublisherSettings(_Settings):
    """The bridge process."""

    batch: int = Field(
        default=500,
        ge=1,
        le=5_000,
        description="entries read at once from each partition, and written with one call",
    )
    lease: PositiveTime = Field(
        default=timedelta(seconds=5), description="a dead replica's partitions are taken over after this"
    )
    request_timeout: PositiveTime = timedelta(seconds=10)
    max_backoff: PositiveTime = timedelta(seconds=15)


class LimitSettings(_Settings):
    """Concurrency limits and rates, kept in Redis."""

    redis_url: str | None = Field(
        default=None, description="the outbox's Redis unless another is given; best the broker's own"
    )
    lease: Annotated[timedelta, Field(ge=timedelta(seconds=1))] = Field(
        default=timedelta(seconds=15), description="the slots of a dead worker are free again after this"
    )
    grant: PositiveTime = Field(
        default=timedelta(seconds=5),
        description="a freed slot that no worker takes up within this goes to others",
    )
    timeout: PositiveTime = Field(
        default=timedelta(seconds=2), description="the longest a worker waits for Redis at a time"
    )
    positions_per_second: int = Field(
        default=50, ge=0, description="changed places in line that one deployment reports at most"
    )


class BridgeSettings(_Settings):
    """All of it; a worker needs the outbox only, a bridge process needs `supabase` too."""

    outbox: OutboxSettings = OutboxSettings()
    supabase: SupabaseSettings | None = None
    limits: LimitSettings = LimitSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    publisher: PublisherSettings = PublisherSettings()
    deployment: str = Field(
        default=DEPLOYMENT,
        pattern=r"^[A-Za-z0-9_.-]{1,60}$",
        description="tells its rows from those of other deployments that share the Supabase project",
    )

    @property
    def limits_redis_url(self) -> str:
        """Where limits and leases are kept."""
        return self.limits.redis_url or self.outbox.redis_url

    expose_errors: bool = Field(
        default=False, description="show the text of any exception to the user, not only PublicError's"
    )
