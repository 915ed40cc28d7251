"""This deployment's settings, from the environment and `.env`, checked when a process starts."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.errors import SettingsError
from bridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    LimitSettings,
    OutboxSettings,
    SupabaseSettings,
)


class Settings(BaseSettings):
    """Each field is one environment variable of the same name in capitals.

    >>> Settings(redis_url="redis://127.0.0.1:6379/0").outbox_partitions
    8
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    supabase_url: str | None = None
    supabase_secret_key: SecretStr | None = Field(default=None, description="sb_secret_... of the project")
    supabase_service_role_key: SecretStr | None = Field(default=None, description="the legacy JWT")

    broadcast_private: bool = True
    broadcast_messages_per_second: int = Field(default=100, ge=1)
    broadcast_listeners: int = Field(default=1, ge=0)
    outbox_partitions: int = Field(default=8, ge=1, le=256)
    outbox_max_length: int = Field(default=200_000, ge=1_000)
    limits_redis_url: str | None = Field(default=None, description="where it is not REDIS_URL")
    limits_lease_seconds: int = Field(default=15, ge=1, le=3_600)
    limits_grant_seconds: int = Field(default=5, ge=1, le=3_600)
    limits_positions_per_second: int = Field(default=50, ge=0)
    deployment: str = Field(default="default", pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    expose_errors: bool = False

    openai_api_key: SecretStr | None = None
    openai_base_url: str = "https://api.openai.com/v1"
    openai_embedding_model: str = "text-embedding-3-small"

    providers_allow_private_hosts: bool = Field(
        default=False, description="let accounts name servers in private networks and plain http; for demos"
    )

    flower_user: str = "admin"
    flower_password: SecretStr | None = None
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=0, le=65_535)

    @field_validator("redis_url", "limits_redis_url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ValueError("the port must be a number, such as redis://127.0.0.1:6379/0") from None
        return url

    @property
    def supabase_key(self) -> SecretStr | None:
        return self.supabase_secret_key or self.supabase_service_role_key

    def bridge(self) -> BridgeSettings:
        """The library's settings; without a Supabase URL and key, workers run and no bridge starts."""
        return BridgeSettings(
            outbox=OutboxSettings(
                redis_url=self.redis_url,
                partitions=self.outbox_partitions,
                max_length=self.outbox_max_length,
            ),
            supabase=self._supabase(),
            limits=LimitSettings(
                redis_url=self.limits_redis_url,
                lease=timedelta(seconds=self.limits_lease_seconds),
                grant=timedelta(seconds=self.limits_grant_seconds),
                positions_per_second=self.limits_positions_per_second,
            ),
            broadcast=BroadcastSettings(
                private=self.broadcast_private,
                messages_per_second=self.broadcast_messages_per_second,
                listeners=self.broadcast_listeners,
            ),
            deployment=self.deployment,
            expose_errors=self.expose_errors,
        )

    def _supabase(self) -> SupabaseSettings | None:
        if self.supabase_url is None and self.supabase_key is None:
            return None
        if self.supabase_url is None:
            raise SettingsError("  SUPABASE_URL: is not set, though the key is; set both or neither")
        if self.supabase_key is None:
            raise SettingsError(
                "  SUPABASE_SECRET_KEY: is not set, though SUPABASE_URL is; set both or neither"
            )
        try:
            return SupabaseSettings(url=self.supabase_url, key=self.supabase_key)
        except ValidationError as error:
            names = {"url": "SUPABASE_URL", "key": "SUPABASE_SECRET_KEY"}
            raise SettingsError(_lines(error, names)) from error


@cache
def settings() -> Settings:
    """The settings of this process; a wrong one ends it with a line for each variable."""
    try:
        loaded = Settings()
        loaded.bridge()
    except ValidationError as error:
        _stop(_lines(error))
    except SettingsError as error:
        _stop(str(error))
    return loaded


def _stop(lines: str) -> None:
    sys.exit(f"taskcast: wrong settings (environment or .env)\n{lines}")


def _lines(error: ValidationError, names: dict[str, str] | None = None) -> str:
    return "\n".join(_line(problem, names or {}) for problem in error.errors(include_url=False))


def _line(problem: Any, names: dict[str, str]) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else ""
    name = names.get(field, field.upper())
    given = "" if any(word in name for word in ("KEY", "PASSWORD")) else f"={_shown(problem['input'])!r}"
    return f"  {name}{given}: {problem['msg'].removeprefix('Value error, ')}"


def _shown(value: Any) -> str:
    """The value without what may be a password in an address."""
    return re.sub(r"//[^@/]*@", "//***@", str(value))[:80]
