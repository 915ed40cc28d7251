"""Reading the JWTs that clients show: who they are, until when, and why a token is refused."""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import jwt

_ALGORITHMS = ["HS256", "HS384", "HS512"]
_CACHE_SIZE = 1_000


@dataclass(frozen=True)
class Claims:
    """A verified token."""

    role: str
    expires_at: int
    everything: dict[str, Any]

    @cached_property
    def as_json(self) -> str:
        """The claims as policies read them from `request.jwt.claims`."""
        return json.dumps(self.everything)

    @property
    def sub(self) -> str:
        """The user's id; empty for keys, which belong to nobody."""
        return str(self.everything.get("sub") or "")


class TokenRefused(Exception):
    """A token cannot be used; the fields carry the words each place of the protocol has for it.

    `handshake` for the HTTP answer before the upgrade, `join` for a join reply, `channel` for the system
    message that closes a joined channel.
    """

    def __init__(self, handshake: str, join: str, channel: str) -> None:
        super().__init__(handshake)
        self.handshake, self.join, self.channel = handshake, join, channel


def expired(seconds_ago: int) -> TokenRefused:
    """The refusal of a token that was good once."""
    text = f"Token has expired {seconds_ago} seconds ago"
    return TokenRefused("Token has expired", f"InvalidJWTToken: {text}", text)


def _malformed() -> TokenRefused:
    text = "The token provided is not a valid JWT"
    return TokenRefused(text, f"MalformedJWT: {text}", text)


def _wrong_signature() -> TokenRefused:
    text = "Failed to validate JWT signature"
    return TokenRefused(text, f"JwtSignatureError: {text}", ":signature_error")


def _missing_claims() -> TokenRefused:
    text = "Fields `role` and `exp` are required in JWT"
    return TokenRefused(text, f"InvalidJWTToken: {text}", text)


class TokenReader:
    """Verifies tokens with the tenant's secret and remembers those it has verified.

    >>> TokenReader("a secret of at least 32 characters").read(token).role
    'authenticated'
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._known: OrderedDict[str, Claims] = OrderedDict()

    def read(self, token: str) -> Claims:
        """The claims of a token; raises TokenRefused."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verify(token)
            self._remember(token, claims)
        late = int(time.time()) - claims.expires_at
        if late >= 0:
            raise expired(late)
        return claims

    def _verify(self, token: str) -> Claims:
        try:
            everything = jwt.decode(
                re.sub(r"\s", "", unquote(token)),
                self._secret,
                algorithms=_ALGORITHMS,
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_sub": False},
            )
        except jwt.InvalidSignatureError:
            raise _wrong_signature() from None
        except jwt.PyJWTError:
            raise _malformed() from None
        role, expires_at = everything.get("role"), everything.get("exp")
        if "role" not in everything or not isinstance(expires_at, (int, float)):
            raise _missing_claims()
        return Claims(str(role), round(expires_at), everything)

    def _remember(self, token: str, claims: Claims) -> None:
        self._known[token] = claims
        if len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
