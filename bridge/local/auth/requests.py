"""Reads what Auth's endpoints are sent."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from bridge.local.auth.refusals import Refusal


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; an empty body is an empty object."""
    raw = await request.read()
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, "bad_json", f"Could not parse request body as JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "bad_json", "Could not parse request body as JSON: not an object")
    if b"\\u0000" in raw:
        raise Refusal(400, "validation_failed", "Text may not contain the character U+0000")
    return body


def metadata_of(body: dict[str, Any], field: str) -> dict[str, Any]:
    """An optional JSON object of the body."""
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, "validation_failed", f"{field} must be an object")
    return value


def password_of(body: dict[str, Any]) -> str | None:
    """The password, if the body has one."""
    value = body.get("password")
    if value is not None and not isinstance(value, str):
        raise Refusal(400, "validation_failed", "password must be a string")
    return value or None


def number_of(request: web.Request, name: str, default: int, most: int) -> int:
    """A positive number of the query."""
    try:
        value = int(request.query.get(name) or default)
    except ValueError:
        value = 0
    if not 1 <= value <= most:
        raise Refusal(400, "validation_failed", f"{name} must be a number from 1 to {most}")
    return value
