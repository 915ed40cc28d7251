"""How importers fetch: guarded, bounded in size and time, patient, and at last with one clear error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx
import tenacity

from tasks.import_socials import pace
from tasks.import_socials.errors import (
    AccessForbidden,
    AccountError,
    MalformedAnswer,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    ServerNotAllowed,
    TokenRefused,
    UnknownAccount,
)
from tasks.import_socials.guard import AddressRefused, GuardedTransport
from tasks.import_socials.models import Account
from tasks.import_socials.unpacking import Unpacker

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_ERRORS: Mapping[int, type[AccountError]] = {
    401: TokenRefused,
    403: AccessForbidden,
    404: UnknownAccount,
    410: UnknownAccount,
    429: RateLimited,
    451: AccessForbidden,
}


@dataclass(frozen=True)
class FetchPolicy:
    """Bounds of all requests of one import.

    `timeout` bounds each silence, `deadline` one whole answer, headers included, and `longest` the import
    of an account, so that a server that drips cannot hold us.
    `patience` bounds all waiting of an import together, be it for a rate limit or between tries;
    `allow_private` admits plain http and private addresses: for tests and the demo.
    """

    timeout: timedelta = timedelta(seconds=20)
    deadline: timedelta = timedelta(minutes=2)
    longest: timedelta = timedelta(hours=1)
    attempts: int = 5
    patience: timedelta = timedelta(minutes=5)
    max_backoff: timedelta = timedelta(seconds=30)
    max_bytes: int = 10_000_000
    max_redirects: int = 5
    allow_private: bool = False
    user_agent: str = "taskcast/0.1 (social import; +https://github.com/taskcast/taskcast)"


@dataclass(frozen=True)
class Answer:
    """A provider's answer, read whole; `url` is where it came from after redirects."""

    account: Account
    status: int
    headers: httpx.Headers
    body: bytes
    url: str

    def json(self) -> Any:
        """The body as JSON; a `MalformedAnswer` says what was found in its place."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise MalformedAnswer(self.account, f"the provider answered {self._kind}") from error

    @property
    def _kind(self) -> str:
        start = self.body[:200].lstrip().lower()
        if not start:
            return "nothing, where JSON was expected"
        if start.startswith(b"<"):
            return "an HTML page, where JSON was expected"
        return "broken JSON" if start[:1] in b"{[" else "plain text, where JSON was expected"


class Fetcher:
    """Fetches for the accounts of one import; not shared between threads.

    `sleep` is called with seconds for every wait: a task stays cancellable by it, and tests need not wait.
    """

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.policy = policy or FetchPolicy()
        self._sleep_for, self._now = sleep, now
        self._waited = 0.0
        self._resting: dict[str, float] = {}
        self._give_up_at = time.monotonic() + self.policy.longest.total_seconds()
        inner = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))
        self._transport = GuardedTransport(inner, allow_private=self.policy.allow_private)
        self._client = httpx.Client(
            transport=self._transport,
            timeout=self.policy.timeout.total_seconds(),
            headers={"User-Agent": self.policy.user_agent, "Accept-Encoding": "gzip, deflate"},
            # A proxy of the environment would connect where the guard cannot see.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def get(
        self,
        account: Account,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        accept: tuple[int, ...] = (),
    ) -> Answer:
        """The answer of 2xx, or of a status in `accept`; everything else raises its `AccountError`."""
        try:
            request = self._client.build_request("GET", url, params=params or None, headers=headers)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise ServerNotAllowed(account, "the server address cannot be read") from error
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise ServerNotAllowed(account, "the server address cannot be read")
        if time.monotonic() > self._give_up_at:
            raise ProviderUnavailable(account, "the provider is too slow; the next import goes on from here")
        host = request.url.netloc.decode("ascii", "replace")
        self._wait(account, self._resting.pop(host, 0.0))
        answer = self._try(account, request)
        self._resting[host] = pace.until_reset(answer.headers, self._now())
        if 200 <= answer.status < 300 or answer.status in accept:
            return answer
        raise self._error(answer)

    def _try(self, account: Account, request: httpx.Request) -> Answer:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(lambda answer: answer.status in _TRY_AGAIN),
            stop=tenacity.stop_after_attempt(self.policy.attempts),
            wait=self._wait_between,
            sleep=lambda seconds: self._wait(account, seconds),
            retry_error_callback=_last_outcome,
        )
        try:
            return retrying(self._send, account, request)
        except AddressRefused as error:
            raise ServerNotAllowed(account) from error
        except httpx.HTTPError as error:
            raise ProviderUnavailable(account, _reason(error)) from error

    def _send(self, account: Account, request: httpx.Request) -> Answer:
        for _ in range(self.policy.max_redirects + 1):
            with self._within_deadline(account):
                response = self._client.send(request, stream=True)
                try:
                    body = self._read(account, response)
                finally:
                    response.close()
            # httpx builds the request to follow without our token where the host changes.
            if response.next_request is None:
                return Answer(account, response.status_code, response.headers, body, str(response.url))
            request = response.next_request
        raise MalformedAnswer(account, f"more than {self.policy.max_redirects} redirects")

    @contextmanager
    def _within_deadline(self, account: Account) -> Iterator[None]:
        """Ends the connection at the deadline: who reads dripping headers never looks at a clock."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._transport.hang_up()

        timer = threading.Timer(self.policy.deadline.total_seconds(), end)
        timer.daemon = True
        timer.start()
        too_slow = ProviderUnavailable(account, "the provider answers too slowly; try again later")
        try:
            yield
        except (httpx.TransportError, MalformedAnswer) as error:
            if is_late.is_set():
                raise too_slow from error
            raise
        finally:
            timer.cancel()
        if is_late.is_set():  # what was read is cut short, and may look whole
            raise too_slow

    def _read(self, account: Account, response: httpx.Response) -> bytes:
        body, received, most = bytearray(), 0, self.policy.max_bytes
        try:
            unpacker = Unpacker(response.headers.get("content-encoding", ""))
            for chunk in response.iter_raw():
                received += len(chunk)
                body += unpacker.unpack(chunk, most - len(body))
                if max(received, len(body)) > most:
                    raise MalformedAnswer(account, f"the answer is larger than {most // 1_000_000} MB")
        except ValueError as error:
            raise MalformedAnswer(account, "the answer's compression is broken") from error
        return bytes(body)

    def _wait_between(self, state: tenacity.RetryCallState) -> float:
        jittered = tenacity.wait_random_exponential(multiplier=1, max=self.policy.max_backoff.total_seconds())
        outcome = state.outcome
        if outcome is None or outcome.failed:
            return jittered(state)
        headers, now = outcome.result().headers, self._now()
        asked = pace.retry_after(headers, now)
        asked = pace.until_reset(headers, now) if asked is None else asked
        # On top of what is asked for, so that many waiting imports do not come back in one instant.
        return asked + min(jittered(state), 1.0) if asked else jittered(state)

    def _wait(self, account: Account, seconds: float) -> None:
        if seconds <= 0:
            return
        if self._waited + seconds > self.policy.patience.total_seconds():
            raise RateLimited(
                account, f"the provider asks us to wait {_span(seconds)}; the next import goes on from here"
            )
        self._waited += seconds
        self._sleep_for(seconds)

    def _error(self, answer: Answer) -> AccountError:
        kind = _ERRORS.get(answer.status)
        if kind is not None:
            return kind(answer.account)
        if answer.status >= 500:
            return ProviderUnavailable(
                answer.account, f"the provider has trouble of its own ({answer.status}); try again later"
            )
        return RequestRefused(answer.account, f"the provider refused the request ({answer.status})")


def _last_outcome(state: tenacity.RetryCallState) -> Answer:
    assert state.outcome is not None
    answer: Answer = state.outcome.result()
    return answer


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "the provider did not answer in time; try again later"
    return ProviderUnavailable.text


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
