"""Passwords: the rule for a good one, and their hashes (scrypt, RFC 7914)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

from bridge.local.auth.refusals import Refusal

_SHORTEST = 6  # GoTrue's default
_COST = {"n": 2**14, "r": 8, "p": 1}
_NO_HASH = "0" * 24 + "$" + "0" * 44


async def hashed(password: str) -> str:
    """Refuse a weak password, else return `salt$hash` for the database."""
    if len(password) < _SHORTEST:
        raise Refusal(
            422,
            "weak_password",
            f"Password should be at least {_SHORTEST} characters.",
            weak_password={"reasons": ["length"]},
        )
    salt = secrets.token_bytes(16)
    digest = await asyncio.to_thread(_scrypt, password, salt)
    return f"{b64encode(salt).decode()}${b64encode(digest).decode()}"


async def matches(password: str, stored: str | None) -> bool:
    """Whether the password fits; takes as long when there is nothing to compare with."""
    salt, _, digest = (stored or _NO_HASH).partition("$")
    computed = await asyncio.to_thread(_scrypt, password, b64decode(salt))
    return hmac.compare_digest(computed, b64decode(digest)) and stored is not None


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST)
