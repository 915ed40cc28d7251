"""The demo's users, their accounts and the posts they wrote, read from `corpus/`.

Times and ids follow from the place of a post in its file, so they are the same in every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zlib import crc32

_FOLDER: Final = Path(__file__).parent / "corpus"
_NEWEST: Final = datetime(2026, 11, 18, 20, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DemoPost:
    """A post as written: plain text, paragraphs parted by an empty line; `theme` is what it is about."""

    theme: str
    text: str
    at: datetime
    title: str = ""
    language: str = "en"
    community: str = ""  # of Reddit
    story: str = ""  # of Hacker News, what a comment is about
    url: str = ""
    boost_of: str = ""
    edited: bool = False
    removed: bool = False

    @property
    def number(self) -> int:
        """A number that no other post of its account has, higher for newer posts."""
        return int(self.at.timestamp()) * 1_000 + crc32(self.text.encode()) % 1_000

    @property
    def own(self) -> bool:
        """Whether an import stores it: neither a boost nor removed."""
        return not (self.boost_of or self.removed)


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account at one provider, its posts newest first; `form` tells RSS from Atom."""

    user: str
    person: str
    provider: str
    form: str
    handle: str
    title: str
    token: str | None = field(repr=False)
    revoked: bool
    posts: Sequence[DemoPost]


def read_accounts(folder: Path = _FOLDER) -> list[DemoAccount]:
    """All accounts of the demo, grouped by user."""
    return [account for path in sorted(folder.glob("*.json")) for account in _accounts(path)]


def _accounts(path: Path) -> Iterator[DemoAccount]:
    user = json.loads(path.read_text(encoding="utf-8"))
    for account in user["accounts"]:
        form = account["provider"]
        handle = account["handle"]
        yield DemoAccount(
            user=user["user"],
            person=user["name"],
            provider="feed" if form in ("rss", "atom") else form,
            form=form,
            handle=handle,
            title=account.get("title", user["name"]),
            token=f"demo-token-of-{handle}" if form == "reddit" else None,
            revoked=account.get("token") == "revoked",
            posts=_posts(account["posts"], handle),
        )


def _posts(written: Sequence[Mapping[str, Any]], handle: str) -> list[DemoPost]:
    """The posts newest first; the last one in the file is the newest."""
    at = _NEWEST - timedelta(minutes=crc32(handle.encode()) % 1_440)
    posts = []
    for post in reversed(written):
        posts.append(DemoPost(**post, at=at))
        at -= timedelta(minutes=300 + crc32(post["text"].encode()) % 2_400)
    return posts
