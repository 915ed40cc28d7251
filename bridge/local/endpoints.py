"""What a running stack tells its users: addresses and keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Endpoints:
    """Addresses and keys of a running stack, as its ready line carries them."""

    url: str
    database_url: str  # superuser, direct
    redis_url: str
    anon_key: str
    service_key: str
    publishable_key: str
    secret_key: str
    jwt_secret: str
    control: str  # path of the unix socket that stops and starts parts
    logs: str  # directory
    pid: int

    def as_json(self) -> dict[str, str | int]:
        """The ready line's object."""
        return asdict(self)

    def as_table(self) -> str:
        """For people, in the manner of `supabase start`."""
        rows = {
            "API URL": self.url,
            "DB URL": self.database_url,
            "Redis URL": self.redis_url,
            "Publishable key": self.publishable_key,
            "Secret key": self.secret_key,
            "JWT secret": self.jwt_secret,
            "anon key": self.anon_key,
            "service_role key": self.service_key,
            "Logs": self.logs,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:>{width}}: {value}" for name, value in rows.items())


class HasEndpoints:
    """Gives the endpoints as attributes of the stack itself."""

    endpoints: Endpoints

    @property
    def url(self) -> str:
        """The one origin of REST, Auth and Realtime."""
        return self.endpoints.url

    @property
    def database_url(self) -> str:
        """The superuser's direct address."""
        return self.endpoints.database_url

    @property
    def redis_url(self) -> str:
        """Redis, database 0."""
        return self.endpoints.redis_url

    @property
    def anon_key(self) -> str:
        """The legacy anon key (a JWT)."""
        return self.endpoints.anon_key

    @property
    def service_key(self) -> str:
        """The legacy service_role key (a JWT)."""
        return self.endpoints.service_key

    @property
    def publishable_key(self) -> str:
        """The browser's key of the new kind."""
        return self.endpoints.publishable_key

    @property
    def secret_key(self) -> str:
        """The server's key of the new kind."""
        return self.endpoints.secret_key

    @property
    def jwt_secret(self) -> str:
        """What Auth signs tokens with."""
        return self.endpoints.jwt_secret
