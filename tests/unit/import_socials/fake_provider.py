"""A provider on loopback that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tasks.demo.serving import served


@dataclass(frozen=True)
class Answer:
    """What to answer; `body` is sent as JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """The answer for aiohttp."""
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, headers=self.headers, body=self.body)
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(status=self.status, headers=headers, body=json.dumps(self.body).encode())


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


Handler = Callable[[Asked], Answer]


class FakeProvider:
    """Answers by path: from a list of answers, the last one again and again, or from a function."""

    def __init__(self) -> None:
        self.origin = ""
        self.asked: list[Asked] = []
        self._handlers: dict[str, Handler] = {}

    def on(self, path: str, *answers: Answer | Handler) -> None:
        """Sets what a path answers."""
        left = list(answers)

        def handler(asked: Asked) -> Answer:
            answer = left.pop(0) if len(left) > 1 else left[0]
            return answer if isinstance(answer, Answer) else answer(asked)

        self._handlers[path] = handler

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.path, dict(request.query), headers)
        self.asked.append(asked)
        handler = self._handlers.get(request.path)
        return (handler(asked) if handler else Answer({"error": "Not Found"}, 404)).response()


@contextmanager
def fake_provider() -> Iterator[FakeProvider]:
    """A fake provider while the block runs."""
    provider = FakeProvider()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", provider._answer)
    with served(application) as provider.origin:
        yield provider
