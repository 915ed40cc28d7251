"""What an embedder raises."""

from __future__ import annotations

from bridge.errors import PublicError


class EmbeddingError(PublicError):
    """Vectors could not be made; the message says why and what to do, and never holds the key."""

    def __init__(self, message: str, *, code: str = "embedding_failed") -> None:
        super().__init__(message, code=code)
