"""Why an import of an account ended early: one public line each, naming the account, never a token."""

from __future__ import annotations

from bridge.errors import PublicError
from tasks.import_socials.models import Account


class AccountError(PublicError):
    """An account could not be imported; the other accounts of the run go on."""

    kind = "import_failed"
    text = "the import failed"

    def __init__(self, account: Account, detail: str = "") -> None:
        super().__init__(f"{account.key}: {detail or self.text}", code=self.kind)


class TokenRefused(AccountError):
    """The provider does not accept the account's token."""

    kind, text = "token_refused", "the token was refused (401); connect the account again"


class AccessForbidden(AccountError):
    """The account is private, suspended or blocked for us."""

    kind, text = "forbidden", "the provider forbids access (403); the account may be private or suspended"


class UnknownAccount(AccountError):
    """The provider knows no such account."""

    kind, text = "unknown_account", "the provider knows no such account (404); check the name"


class RateLimited(AccountError):
    """The provider asks for a longer wait than an import may take; the next import goes on from here."""

    kind, text = "rate_limited", "the provider asks us to slow down (429); the next import goes on from here"


class MalformedAnswer(AccountError):
    """The provider answered something that is not what its API promises."""

    kind, text = "malformed_answer", "the provider's answer cannot be read"


class ProviderUnavailable(AccountError):
    """The provider does not answer, or only with server errors."""

    kind, text = "provider_unavailable", "the provider does not answer; try again later"


class RequestRefused(AccountError):
    """The provider refused the request itself."""

    kind, text = "request_refused", "the provider refused the request"


class ServerNotAllowed(AccountError):
    """The account's server address is none that we connect to."""

    kind, text = "server_not_allowed", "this server address is not allowed; use a public https:// address"


class AccountRemoved(AccountError):
    """The user disconnected the account while it was imported."""

    kind, text = "account_removed", "the account was disconnected"
