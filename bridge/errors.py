"""Every error of the library: one root, a sentence a class, data as attributes, causes chained."""

from __future__ import annotations

from typing import Any


class TaskcastError(Exception):
    """Root of all errors raised by taskcast."""


class DeclarationError(TaskcastError, TypeError):
    """A task was declared with an option that cannot work; raised at import."""

    def __init__(self, task: str, problem: str, remedy: str) -> None:
        super().__init__(f"task {task}: {problem}; {remedy}")
        self.task = task


class SettingsError(TaskcastError, ValueError):
    """A setting is missing or wrong; the message names its environment variable."""


class ArgumentError(TaskcastError, ValueError):
    """A run was asked for with arguments that the task's declaration cannot use."""

    def __init__(self, field: str, value: Any, remedy: str) -> None:
        super().__init__(f"{field}={value!r:.120}: {remedy}")
        self.field = field


class PayloadTooLarge(TaskcastError, ValueError):
    """A progress report, a log line or a checkpoint is larger than a row or a message may be."""

    def __init__(self, field: str, size: int, limit: int, remedy: str) -> None:
        super().__init__(f"{field} is {size} bytes, at most {limit} are allowed; {remedy}")
        self.field, self.size, self.limit = field, size, limit


class LocalStackError(TaskcastError, RuntimeError):
    """The embedded stack cannot start or go on; the message says what to do."""


class PartCrashed(LocalStackError):
    """A part of the embedded stack ended by itself; carries the end of its log."""

    def __init__(self, part: str, exit_code: int, log_tail: str) -> None:
        super().__init__(
            f"{part} ended by itself with exit code {exit_code}; its last log lines:\n{log_tail}"
        )
        self.part, self.exit_code, self.log_tail = part, exit_code, log_tail


class MigrationError(LocalStackError):
    """A migration failed; the message names its file and the line of the SQL."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}")
        self.file, self.line = file, line


class PublicError(TaskcastError):
    """Raised by a task whose message its user may see; any other exception shows only its kind.

    >>> raise PublicError("This account has no public posts.", code="empty_account")
    """

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_public_error, (type(self), str(self), self.code)


def _rebuild_public_error(cls: type[PublicError], message: str, code: str) -> PublicError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.code = code
    return error


class SupabaseUnavailable(TaskcastError):
    """Supabase did not answer, or answered that it cannot now; the same request is worth repeating.

    `retry_after` are the seconds that it asked to be left alone.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMuchAtOnce(SupabaseUnavailable):
    """Supabase was not done with a request in time; a smaller one may be."""


class KeyRefused(TaskcastError):
    """Supabase does not accept the key, or the key is not that of the service role."""


class SchemaMissing(TaskcastError):
    """The database lacks the bridge's tables and functions, or has older ones than this code needs."""


class BatchRefused(TaskcastError):
    """The database refused the data of a batch; at least one of its elements will never be accepted."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"the database refused a batch ({code})")
        self.code, self.reason = code, reason


class BatchTooLarge(TaskcastError):
    """A request holds more than the other side takes at once; its halves may pass."""


class MessagesRefused(TaskcastError):
    """Realtime refused a batch because of some of its messages; the others may pass without them."""

    def __init__(self, positions: frozenset[int], reason: str) -> None:
        super().__init__(f"Realtime refused messages: {reason}")
        self.positions = positions


class PageNotBuilt(TaskcastError):
    """The page's files are missing or cannot be made; the message says what to do."""
