"""Access tokens: HS256 JWTs with GoTrue's claims."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
from aiohttp import web

from bridge.local.auth.refusals import Refusal
from bridge.local.keys import Keys

LIFETIME = timedelta(hours=1)
_ADMIN_ROLES = frozenset({"service_role", "supabase_admin"})


@dataclass(frozen=True)
class Claims:
    """What a verified token says."""

    user_id: UUID
    session_id: UUID | None


class Tokens:
    """Signs and verifies the tokens of one project."""

    def __init__(self, keys: Keys, issuer: str) -> None:
        self._keys, self._issuer = keys, issuer

    def sign(self, user: dict[str, Any], session_id: UUID, amr: list[dict[str, Any]]) -> tuple[str, int]:
        """Return the token and its expiry in Unix seconds."""
        now = int(time.time())
        expires_at = now + int(LIFETIME.total_seconds())
        claims = {
            "iss": self._issuer,
            "sub": str(user["id"]),
            "aud": user["aud"],
            "exp": expires_at,
            "iat": now,
            "email": user["email"] or "",
            "phone": user["phone"] or "",
            "app_metadata": user["raw_app_meta_data"],
            "user_metadata": user["raw_user_meta_data"],
            "role": user["role"],
            "aal": "aal1",
            "amr": amr,
            "session_id": str(session_id),
            "is_anonymous": user["is_anonymous"],
        }
        return jwt.encode(claims, self._keys.jwt_secret, "HS256"), expires_at

    def user_of(self, request: web.Request) -> Claims:
        """The user that a request speaks for."""
        claims = self._verified(request)
        try:
            session_id = claims.get("session_id")
            return Claims(UUID(claims["sub"]), UUID(session_id) if session_id else None)
        except (KeyError, ValueError, AttributeError):
            raise Refusal(403, "bad_jwt", "invalid claim: missing sub claim") from None

    def require_admin(self, request: web.Request) -> None:
        """Refuse everybody but the holders of a service key."""
        if self._verified(request).get("role") not in _ADMIN_ROLES:
            raise Refusal(403, "not_admin", "User not allowed")

    def _verified(self, request: web.Request) -> dict[str, Any]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            claims: dict[str, Any] = jwt.decode(
                self._keys.exchange(token.strip()),
                self._keys.jwt_secret,
                ["HS256"],
                options={"verify_aud": False, "verify_sub": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            problem = f"invalid JWT: unable to parse or verify signature, {error}"
            raise Refusal(403, "bad_jwt", problem) from None
        return claims
