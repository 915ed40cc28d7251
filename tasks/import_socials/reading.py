"""Reads values out of a provider's JSON without trusting its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.import_socials.errors import MalformedAnswer
from tasks.import_socials.http import Answer
from tasks.import_socials.models import Account


def objects(account: Account, value: Any, what: str) -> list[Mapping[str, Any]]:
    """The objects of a list; what is no object in it is left out, what is no list is malformed."""
    if not isinstance(value, list):
        raise MalformedAnswer(account, f"the provider's answer holds no list of {what}")
    return [item for item in value if isinstance(item, Mapping)]


def mapping(answer: Answer, what: str) -> Mapping[str, Any]:
    """The answer's JSON object."""
    value = answer.json()
    if not isinstance(value, Mapping):
        raise MalformedAnswer(answer.account, f"the provider's answer holds no {what}")
    return value


def text(source: Any, *path: str) -> str:
    """The text at a path of keys; empty where there is none.

    >>> text({"account": {"acct": "alice"}}, "account", "acct")
    'alice'
    """
    for key in path:
        source = source.get(key) if isinstance(source, Mapping) else None
    return source if isinstance(source, str) else ""


def count(source: Mapping[str, Any], key: str) -> int | None:
    """A count that a provider tells; None where it is none."""
    value = source.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def origin(server: str | None, default: str) -> str:
    """The base of API addresses, without a slash at its end; a bare host name means https."""
    base = (server or "").strip().rstrip("/") or default
    return base if "://" in base else f"https://{base}"
