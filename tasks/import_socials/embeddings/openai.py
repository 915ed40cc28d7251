"""Embeddings from an OpenAI-compatible `/embeddings` endpoint.

Source: the API reference of OpenAI, "Create embeddings"; Ollama, vLLM and LocalAI answer the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from tasks.import_socials.embeddings.errors import EmbeddingError

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "text-embedding-3-small"
DEFAULT_DIMENSIONS = 384  # of models that shorten their vectors: enough for topics, a quarter of the bytes

_BLANK = "-"  # the API refuses an empty input
_LEAST_CHARACTERS = 256
_TOO_LONG_HINTS = ("too long", "maximum", "context")
_LONGEST_WAIT = timedelta(seconds=60)
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


class _Transient(Exception):
    """An answer worth asking for again; `wait` is the server's wish in seconds."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait


class _TooLong(Exception):
    """One input of the batch has more tokens than the model reads."""


class OpenAIEmbedder:
    """Embeds through HTTP: batched, retried with jitter, order kept.

    Without `dimensions`, a model that can shorten its vectors gives 384 numbers and any other its own.

    >>> OpenAIEmbedder("a key", base_url="http://127.0.0.1:11434/v1", model="nomic-embed-text")
    OpenAIEmbedder(model='nomic-embed-text', base_url='http://127.0.0.1:11434/v1')
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = OPENAI_URL,
        model: str = DEFAULT_MODEL,
        dimensions: int | None = None,
        timeout: timedelta = timedelta(seconds=60),
        attempts: int = 6,
        first_wait: timedelta = timedelta(seconds=1),
        batch_size: int = 128,
        batch_characters: int = 200_000,
        text_characters: int = 24_000,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise EmbeddingError("The embeddings URL must read https://host/v1, no name or password in it.")
        self._shortens = model.startswith("text-embedding-3")  # elsewhere the parameter is often refused
        if dimensions is None and self._shortens:
            dimensions = DEFAULT_DIMENSIONS
        self.dimensions = dimensions
        self.model = f"{model}/{dimensions}" if self._shortens else model
        self._model = model
        self._url = base_url.rstrip("/")
        self._attempts, self._first_wait = attempts, first_wait
        self._batch_size, self._batch_characters, self._text_characters = (
            batch_size,
            batch_characters,
            text_characters,
        )
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._timeout = timeout.total_seconds()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder(model={self.model!r}, base_url={self._url!r})"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in the order of the texts; a text beyond the model's length is cut."""
        vectors: list[list[float]] = []
        with httpx.Client(headers=self._headers, timeout=self._timeout, follow_redirects=False) as http:
            for batch in self._batches(texts):
                vectors += self._embed_batch(http, batch)
        return vectors

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            cut = text[: self._text_characters].strip() or _BLANK
            if batch and (len(batch) == self._batch_size or size + len(cut) > self._batch_characters):
                yield batch
                batch, size = [], 0
            batch.append(cut)
            size += len(cut)
        if batch:
            yield batch

    def _embed_batch(self, http: httpx.Client, batch: list[str]) -> list[list[float]]:
        """The API does not say which text was too long, so the longest are halved until it accepts all."""
        while True:
            try:
                return self._with_retries(http, batch)
            except _TooLong as error:
                longest = max(len(text) for text in batch)
                if longest <= _LEAST_CHARACTERS:
                    raise EmbeddingError(
                        f"Model {self.model} at {self._url} refuses even {longest} characters as too long;"
                        " choose a model that reads more."
                    ) from error
                batch = [text[: longest // 2] for text in batch]

    def _with_retries(self, http: httpx.Client, batch: list[str]) -> list[list[float]]:
        retrying = Retrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            reraise=True,
        )
        try:
            return retrying(self._ask, http, batch)
        except _Transient as error:
            raise EmbeddingError(
                f"{self._url} gave no embeddings in {self._attempts} attempts; last problem: {error}",
                code="embedding_unavailable",
            ) from error

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        first, longest = self._first_wait.total_seconds(), _LONGEST_WAIT.total_seconds()
        jittered = wait_random_exponential(multiplier=first, max=longest)(state)
        asked = error.wait if isinstance(error, _Transient) else None
        return jittered if asked is None else min(longest, asked + jittered / 10)

    def _ask(self, http: httpx.Client, batch: list[str]) -> list[list[float]]:
        body: dict[str, Any] = {"model": self._model, "input": batch, "encoding_format": "float"}
        if self._shortens:
            body["dimensions"] = self.dimensions
        try:
            response = http.post(f"{self._url}/embeddings", json=body)
        except httpx.TransportError as error:
            raise _Transient(f"{type(error).__name__} while talking to {self._url}") from error
        if response.status_code != httpx.codes.OK:
            raise self._problem(response)
        return self._vectors(response, len(batch))

    def _problem(self, response: httpx.Response) -> Exception:
        status, detail = response.status_code, _detail(response)
        told = f" ({detail['code']})" if detail["code"] else ""
        if detail["code"] == "insufficient_quota":
            return EmbeddingError(f"The account behind the key at {self._url} has no quota left; add credit.")
        if status in _TRANSIENT:
            return _Transient(f"HTTP {status}{told}", _retry_after(response))
        if status in {400, 413, 422} and any(hint in detail["message"] for hint in _TOO_LONG_HINTS):
            return _TooLong()
        if status in {401, 403}:
            return EmbeddingError(
                f"{self._url} rejected the API key (HTTP {status}); set OPENAI_API_KEY to a valid one,"
                " or unset it to embed locally.",
                code="embedding_key_rejected",
            )
        if status == httpx.codes.NOT_FOUND:
            return EmbeddingError(
                f"{self._url} knows no model {self._model!r} or has no /embeddings (HTTP 404);"
                " check the embedding model and the base URL.",
                code="embedding_model_unknown",
            )
        return EmbeddingError(f"{self._url} refused to embed with {self._model!r}: HTTP {status}{told}.")

    def _vectors(self, response: httpx.Response, expected: int) -> list[list[float]]:
        try:
            data = sorted(response.json()["data"], key=lambda item: int(item["index"]))
            vectors = [[float(number) for number in item["embedding"]] for item in data]
            whole = [item["index"] for item in data] == list(range(expected))
        except (ValueError, KeyError, TypeError) as error:
            raise _Transient("an answer that is not a list of embeddings") from error
        if not whole or not all(math.isfinite(number) for vector in vectors for number in vector):
            raise _Transient(f"{len(vectors)} embeddings for {expected} texts, or not all finite")
        sizes = {len(vector) for vector in vectors}
        if self.dimensions is None and len(sizes) == 1:
            self.dimensions = sizes.pop()
        elif sizes != {self.dimensions}:
            raise EmbeddingError(
                f"Model {self.model} answers vectors of {', '.join(map(str, sorted(sizes)))} numbers,"
                f" but {self.dimensions} are expected; let model and dimensions agree.",
                code="embedding_dimensions",
            )
        return vectors


def _detail(response: httpx.Response) -> dict[str, str]:
    """The machine-readable part of an error. Its prose is not shown: it repeats parts of the key."""
    try:
        error = response.json()["error"]
        fields = error if isinstance(error, dict) else {"message": error}
    except (ValueError, KeyError, TypeError):
        fields = {}
    code = str(fields.get("code") or fields.get("type") or "")
    safe = code if code.isidentifier() and len(code) < 60 else ""
    return {"code": safe, "message": str(fields.get("message")).lower()}


def _retry_after(response: httpx.Response) -> float | None:
    try:
        wait = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, wait) if math.isfinite(wait) else None
