"""Reads recorded exchanges of providers: one JSON file for each case, in one folder for each provider."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.import_socials.models import Provider

FOLDERS = {
    "mastodon": Provider.MASTODON,
    "bluesky": Provider.BLUESKY,
    "reddit": Provider.REDDIT,
    "hackernews": Provider.HACKERNEWS,
    "feeds": Provider.FEED,
}
_KEPT = ("content-type", "retry-after", "etag", "last-modified", "cache-control", "link", "location")


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer; `parsed` is the answer's JSON, or its text where it was none."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    parsed: Any

    @property
    def failed(self) -> bool:
        """Whether the answer is an error, or not of the shape of any API: text, or nothing at all."""
        return self.status >= 300 or self.parsed is None or isinstance(self.parsed, str)


@dataclass(frozen=True)
class Case:
    """One recorded case; `name` is its file name without the ending."""

    provider: Provider
    name: str
    exchanges: tuple[Exchange, ...]


def read_cases(directory: Path) -> Iterator[Case]:
    """All cases below the directory, in the order of their names; ValueError names a file that is none."""
    files = [path for folder in sorted(FOLDERS) for path in sorted((directory / folder).glob("*.json"))]
    if not files:
        raise ValueError(f"{directory} holds no recordings; expected folders {', '.join(sorted(FOLDERS))}")
    for path in files:
        try:
            exchanges = tuple(map(_exchange, json.loads(path.read_bytes())["exchanges"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no recorded case: {error!r}") from error
        yield Case(FOLDERS[path.parent.name], path.stem, exchanges)


def _exchange(recorded: Mapping[str, Any]) -> Exchange:
    response = recorded["response"]
    headers = {name.lower(): str(value) for name, value in response["headers"].items()}
    return Exchange(
        url=recorded["request"]["url"],
        status=response["status"],
        headers={name: value for name, value in headers.items() if name in _KEPT or "ratelimit-" in name},
        body=_body(response),
        parsed=response["body"],
    )


def _body(response: Mapping[str, Any]) -> bytes:
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    body = response["body"]
    # Escaped, so that a lone surrogate of the recording stays JSON.
    return body.encode("utf-8", "replace") if isinstance(body, str) else json.dumps(body).encode()
