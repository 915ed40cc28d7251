"""The keys of a local stack: the well-known ones of the Supabase CLI, legacy JWTs and the new kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jwt

# All of these are public knowledge: every `supabase start` on every machine hands out the same ones.
WELL_KNOWN_JWT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105
WELL_KNOWN_PUBLISHABLE_KEY = "sb_publishable_" + "ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
WELL_KNOWN_SECRET_KEY = "sb_secret_" + "N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"
_DEMO_EXPIRY = 1983812996


@dataclass(frozen=True)
class Keys:
    """The JWT secret and the four keys derived from or paired with it."""

    jwt_secret: str = WELL_KNOWN_JWT_SECRET
    publishable: str = WELL_KNOWN_PUBLISHABLE_KEY
    secret: str = WELL_KNOWN_SECRET_KEY

    @cached_property
    def anon(self) -> str:
        """The legacy key of the role `anon`, a JWT."""
        return self._demo_token("anon")

    @cached_property
    def service(self) -> str:
        """The legacy key of the role `service_role`, a JWT."""
        return self._demo_token("service_role")

    def exchange(self, key: str) -> str:
        """Turn a key of the new kind into its JWT; any other text is returned as it is."""
        return {self.publishable: self.anon, self.secret: self.service}.get(key, key)

    def accepts(self, key: str) -> bool:
        """Whether `key` opens the gateway: one of the four keys, or any JWT signed with the secret."""
        token = self.exchange(key)
        if token in (self.anon, self.service):
            return True
        try:
            # Expiry is the business of the service behind the gateway, which words it its own way.
            jwt.decode(token, self.jwt_secret, ["HS256"], options={"verify_exp": False, "verify_aud": False})
        except jwt.InvalidTokenError:
            return False
        return True

    def _demo_token(self, role: str) -> str:
        claims = {"iss": "supabase-demo", "role": role, "exp": _DEMO_EXPIRY}
        return jwt.encode(claims, self.jwt_secret, "HS256")
