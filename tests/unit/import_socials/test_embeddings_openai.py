"""The OpenAI-compatible embedder, against a real HTTP server that speaks the API."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from tasks.demo.serving import served
from tasks.import_socials.embeddings import embedder_from
from tasks.import_socials.embeddings.errors import EmbeddingError
from tasks.import_socials.embeddings.openai import OpenAIEmbedder

KEY = "a-key-that-must-stay-secret"


class Api:
    """Answers as the API does; `answers` are given first, one a request."""

    def __init__(self) -> None:
        self.url = ""
        self.dimensions = 4
        self.longest = 10_000
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answers: list[tuple[int, Any, dict[str, str]]] = []

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.times.append(time.monotonic())
        if self.answers:
            status, answer, headers = self.answers.pop(0)
            if isinstance(answer, str):
                return web.Response(status=status, text=answer, headers=headers)
            return web.json_response(answer, status=status, headers=headers)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _error(401, "invalid_api_key", f"Incorrect API key provided: {KEY[:8]}")
        if any(not text for text in body["input"]):
            return _error(400, "invalid_request_error", "input cannot be an empty string")
        if any(len(text) > self.longest for text in body["input"]):
            return _error(400, "context_length_exceeded", "This model's maximum context length is exceeded")
        data = [
            {"object": "embedding", "index": i, "embedding": [float(len(text))] * self.dimensions}
            for i, text in enumerate(body["input"])
        ]
        # Out of order, as the contract allows: the index tells.
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"]})

    def embedder(self, **options: Any) -> OpenAIEmbedder:
        options = {"model": "a-model", "dimensions": 4, "first_wait": timedelta(milliseconds=1)} | options
        return OpenAIEmbedder(KEY, base_url=f"{self.url}/v1", **options)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code, "type": code}}, status=status)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    application = web.Application(client_max_size=10_000_000)
    application.router.add_post("/v1/embeddings", api.embeddings)
    with served(application) as api.url:
        yield api


def test_vectors_come_in_the_order_of_the_texts(api: Api) -> None:
    vectors = api.embedder().embed(["a", "bbb", "cc"])
    assert [vector[0] for vector in vectors] == [1.0, 3.0, 2.0]


def test_texts_are_sent_in_batches_by_count_and_by_size(api: Api) -> None:
    assert len(api.embedder(batch_size=2).embed(["a", "b", "c", "d", "e"])) == 5
    assert [len(request["input"]) for request in api.requests] == [2, 2, 1]
    api.requests.clear()
    api.embedder(batch_characters=10).embed(["a" * 6, "b" * 6, "c" * 3])
    assert [len(request["input"]) for request in api.requests] == [1, 2]


def test_a_blank_text_is_sent_as_something(api: Api) -> None:
    assert len(api.embedder().embed(["", "  \n", "a"])) == 3


def test_no_texts_ask_nothing(api: Api) -> None:
    assert api.embedder().embed([]) == []
    assert api.requests == []


def test_a_model_that_shortens_its_vectors_is_asked_to(api: Api) -> None:
    embedder = api.embedder(model="text-embedding-3-small")
    embedder.embed(["a"])
    assert api.requests[0]["dimensions"] == 4
    assert embedder.model == "text-embedding-3-small/4"
    api.embedder().embed(["a"])
    assert "dimensions" not in api.requests[1]


def test_unstated_dimensions_are_those_of_the_first_answer(api: Api) -> None:
    embedder = api.embedder(dimensions=None)
    embedder.embed(["a"])
    assert embedder.dimensions == 4
    api.dimensions = 5
    with pytest.raises(EmbeddingError, match="vectors of 5 numbers, but 4 are expected"):
        embedder.embed(["a"])


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, {"error": {"code": "rate_limit_exceeded"}}), (500, "oops"), (503, ""), (200, "<html>"), (200, {})],
)
def test_a_passing_trouble_is_retried(api: Api, status: int, body: Any) -> None:
    api.answers = [(status, body, {})] * 2
    assert len(api.embedder().embed(["a"])) == 1
    assert len(api.requests) == 3


def test_an_answer_with_a_vector_missing_is_asked_for_again(api: Api) -> None:
    api.answers = [(200, {"data": [{"index": 0, "embedding": [1.0] * 4}]}, {})]
    assert len(api.embedder().embed(["a", "b"])) == 2


def test_retry_after_is_respected(api: Api) -> None:
    api.answers = [(429, {}, {"Retry-After": "0.3"})]
    api.embedder().embed(["a"])
    assert api.times[1] - api.times[0] >= 0.3


def test_a_lasting_trouble_ends_in_one_clear_error(api: Api) -> None:
    api.answers = [(500, "", {})] * 3
    with pytest.raises(EmbeddingError, match="no embeddings in 3 attempts; last problem: HTTP 500") as caught:
        api.embedder(attempts=3).embed(["a"])
    assert caught.value.code == "embedding_unavailable"


def test_an_unreachable_server_ends_in_one_clear_error() -> None:
    embedder = OpenAIEmbedder(
        KEY, base_url="http://127.0.0.1:9/v1", attempts=2, first_wait=timedelta(milliseconds=1)
    )
    with pytest.raises(EmbeddingError, match=r"ConnectError while talking to http://127.0.0.1:9"):
        embedder.embed(["a"])


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, {"error": {"code": "model_not_found"}}, "embedding_model_unknown", "knows no model 'a-model'"),
        (429, {"error": {"code": "insufficient_quota"}}, "embedding_failed", "has no quota left"),
        (400, {"error": {"code": "bad"}}, "embedding_failed", "HTTP 400 .bad."),
        (307, "", "embedding_failed", "HTTP 307"),
    ],
)
def test_a_refusal_is_not_retried(api: Api, status: int, body: Any, code: str, message: str) -> None:
    api.answers = [(status, body, {})]
    with pytest.raises(EmbeddingError, match=message) as caught:
        api.embedder().embed(["a"])
    assert caught.value.code == code
    assert len(api.requests) == 1


def test_a_wrong_key_is_told_and_never_shown(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    wrong = f"{KEY}-wrong"
    embedder = OpenAIEmbedder(wrong, base_url=f"{api.url}/v1", dimensions=4)
    with pytest.raises(
        EmbeddingError, match=r"rejected the API key \(HTTP 401\); set OPENAI_API_KEY"
    ) as caught:
        embedder.embed(["a"])
    told = "".join(traceback.format_exception(caught.value)) + repr(embedder) + caplog.text
    assert KEY[:8] not in told


def test_a_text_beyond_the_models_length_is_cut(api: Api) -> None:
    api.longest = 700
    vectors = api.embedder().embed(["short", "x" * 5_000])
    assert vectors[0][0] == 5.0
    assert 300 < vectors[1][0] <= 700


def test_a_model_that_reads_next_to_nothing_is_told(api: Api) -> None:
    api.longest = 10
    with pytest.raises(EmbeddingError, match="refuses even"):
        api.embedder().embed(["x" * 5_000])


@pytest.mark.parametrize(
    "url", ["api.example/v1", "ftp://api.example", "https://me:secret@api.example/v1", ""]
)
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(EmbeddingError, match="must read https://host/v1") as caught:
        OpenAIEmbedder(KEY, base_url=url)
    assert "secret" not in str(caught.value)


def test_with_a_key_the_api_is_chosen(api: Api) -> None:
    embedder = embedder_from(KEY, base_url=f"{api.url}/v1", model="a-model")
    assert embedder.embed(["abc"]) == [[3.0] * 4]
    assert embedder.model == "a-model"


def test_an_error_survives_the_way_through_the_broker() -> None:
    error = pickle.loads(pickle.dumps(EmbeddingError("no quota", code="embedding_unavailable")))
    assert (type(error), str(error), error.code) == (EmbeddingError, "no quota", "embedding_unavailable")
