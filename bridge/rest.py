"""Supabase's REST API: functions of the database, called with the service role's key."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final

import httpx

from bridge.errors import (
    BatchRefused,
    BatchTooLarge,
    KeyRefused,
    SchemaMissing,
    SupabaseUnavailable,
    TooMuchAtOnce,
)
from bridge.exchange import exchange, retry_after
from bridge.settings import SupabaseSettings

_DATA_ERRORS: Final = ("22", "23", "P0")  # SQLSTATE classes: data, integrity, refused by a trigger
_LIMIT_PASSED: Final = "54"  # the class of data that Postgres has no room for, an index row for one
_TOO_SLOW: Final = ("57014", "55P03")  # the statement's time is up, or that of waiting for a lock
_CODE: Final = re.compile(r"[A-Z0-9]{1,12}")


class Rest:
    """The functions behind `<url>/rest/v1/rpc`."""

    def __init__(self, settings: SupabaseSettings, timeout: timedelta) -> None:
        self._url, self._within = settings.url, timeout.total_seconds()
        self._client = httpx.AsyncClient(
            headers=headers_for(settings), timeout=self._within, cookies=no_cookies()
        )

    async def call(self, function: str, body: bytes) -> Any:
        """What a function answers, called with a JSON object of its arguments.

        Raises:
            BatchRefused, BatchTooLarge, KeyRefused, SchemaMissing, SupabaseUnavailable.
        """
        asked = exchange(self._client, f"{self._url}/rest/v1/rpc/{function}", body, self._within)
        return await answered(asked, self._url)

    async def ask(self, function: str, body: bytes) -> Any:
        """The same for what holds no batch, so that no batch is the cause of a refusal.

        Raises:
            KeyRefused, SchemaMissing, SupabaseUnavailable.
        """
        try:
            return await self.call(function, body)
        except (BatchRefused, BatchTooLarge) as error:
            raise SupabaseUnavailable(f"{self._url}/rest/v1 cannot be read: {error}") from error

    @contextmanager
    def as_ours(self) -> Iterator[None]:
        """Reading what a function of ours answers; another shape is none of its answers."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self.not_supabase() from error

    def not_supabase(self) -> SupabaseUnavailable:
        """What answers is no Supabase."""
        return not_supabase(self._url)

    async def close(self) -> None:
        await self._client.aclose()


async def answered(asked: Awaitable[httpx.Response], url: str) -> Any:
    """What the REST API of the project at `url` answers, read as JSON.

    Raises:
        SupabaseUnavailable: no answer, or none of Supabase's. Others as `error_of` says.
    """
    try:
        response = await asked
    except httpx.HTTPError as error:
        raise SupabaseUnavailable(f"no answer from {url}/rest/v1 ({type(error).__name__})") from error
    if response.status_code != 200:
        raise error_of(response, url)
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise not_supabase(url) from error


def not_supabase(url: str) -> SupabaseUnavailable:
    """Something answers that is no Supabase: a proxy's page, or half an answer."""
    return SupabaseUnavailable(f"{url}/rest/v1 does not answer as Supabase does")


def headers_for(settings: SupabaseSettings) -> dict[str, str]:
    """Headers that authorize a request; a key of the new kind is no JWT and goes as `apikey` only."""
    key = settings.key.get_secret_value()
    headers = {"apikey": key, "content-type": "application/json"}
    if not key.startswith("sb_"):
        headers["authorization"] = f"Bearer {key}"
    return headers


def no_cookies() -> CookieJar:
    """A jar that stays empty: a proxy's cookie, sent back, could spoil every later request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def error_of(response: httpx.Response, url: str) -> Exception:
    status = response.status_code
    code, reason = _problem(response.content)
    if status in (401, 403):
        return KeyRefused(
            f"{url} refuses the key ({status}); the bridge needs the project's secret key "
            "(sb_secret_... or the legacy service_role JWT): set SUPABASE_SECRET_KEY"
        )
    if status == 404 and code in ("PGRST202", "PGRST205", "42883", "42P01"):
        return SchemaMissing(f"the database at {url} lacks the bridge's tables and functions; {remedy()}")
    if status == 413:
        return BatchTooLarge("the request is too large for the REST API")
    if code[:2] == _LIMIT_PASSED or (400 <= status < 500 and code[:2] in _DATA_ERRORS):
        return BatchRefused(code, reason)
    if code in _TOO_SLOW:
        return TooMuchAtOnce(f"{url}/rest/v1 takes too long over the batch ({code})")
    return SupabaseUnavailable(f"{url}/rest/v1 answers {status} {code}".rstrip(), retry_after(response))


def _problem(body: bytes) -> tuple[str, str]:
    """The code and the text of an error in PostgREST's form, empty where it is none."""
    try:
        problem = json.loads(body)
        code, reason = str(problem.get("code", "")), str(problem.get("message", ""))
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    return (code, reason) if _CODE.fullmatch(code) else ("", reason)


def remedy() -> str:
    """What to do where the bridge's tables are missing."""
    return f"apply the migrations: supabase --workdir {Path(__file__).parent} db push"
