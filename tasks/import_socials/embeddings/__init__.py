"""Embedders: texts in, vectors out. One file a variant, one choice between them.

>>> embedder_from(api_key=None).model
'local-words-1-384'
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol


class Embedder(Protocol):
    """Turns texts into vectors of one size; vectors of the same `model` may be compared, others may not."""

    @property
    def model(self) -> str:
        """Names the vector space; store it beside the vectors."""

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has; None before the first answer of a model that does not say."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order. Raises `EmbeddingError`."""


def embedder_from(
    api_key: str | None,
    *,
    base_url: str | None = None,
    model: str | None = None,
    dimensions: int | None = None,
    timeout: timedelta = timedelta(seconds=60),
) -> Embedder:
    """The embedder of an OpenAI-compatible API when a key is given, else the local one.

    `base_url` ends before `/embeddings`, e.g. `https://api.openai.com/v1`.
    """
    if not api_key:
        from tasks.import_socials.embeddings.local import LocalEmbedder  # costs a second

        return LocalEmbedder(dimensions) if dimensions else LocalEmbedder()
    from tasks.import_socials.embeddings.openai import DEFAULT_MODEL, OPENAI_URL, OpenAIEmbedder

    return OpenAIEmbedder(
        api_key,
        base_url=base_url or OPENAI_URL,
        model=model or DEFAULT_MODEL,
        dimensions=dimensions,
        timeout=timeout,
    )
