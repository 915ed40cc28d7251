"""What an import handles: an account, its posts page by page, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

CursorState = Mapping[str, Any]
"""Where the last import of an account ended; JSON that only its importer reads."""


class Provider(StrEnum):
    """The providers an account can be of; the values stand in the rows."""

    MASTODON = "mastodon"
    BLUESKY = "bluesky"
    HACKERNEWS = "hackernews"
    REDDIT = "reddit"
    FEED = "feed"

    @property
    def display_name(self) -> str:
        """The name a person reads, such as «Hacker News»."""
        return _DISPLAY_NAMES[self]


_DISPLAY_NAMES = {
    Provider.MASTODON: "Mastodon",
    Provider.BLUESKY: "Bluesky",
    Provider.HACKERNEWS: "Hacker News",
    Provider.REDDIT: "Reddit",
    Provider.FEED: "feed",
}


@dataclass(frozen=True)
class Account:
    """A connected account of a user.

    `server` is the origin of its API (for a feed: the address of the feed) where the provider's own
    is not meant; `token` never shows in `repr`.
    """

    id: str
    user_id: str
    provider: Provider
    handle: str
    server: str | None = None
    token: str | None = field(default=None, repr=False)
    cursor: CursorState = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a progress message calls it, such as «Mastodon (alice)»."""
        return f"{self.provider.display_name} ({self._handle})"

    @property
    def key(self) -> str:
        """What an error line calls it, such as «reddit/alice»."""
        return f"{self.provider.value}/{self._handle}"

    @property
    def _handle(self) -> str:
        printable = "".join(c for c in self.handle if c.isprintable()).strip()
        return printable if len(printable) <= 80 else printable[:79] + "…"


@dataclass(frozen=True)
class Post:
    """One post as it is stored: plain text, no HTML; `external_id` is unique within its account."""

    external_id: str
    author: str
    text: str
    url: str | None = None
    published_at: datetime | None = None
    language: str | None = None


@dataclass(frozen=True)
class Page:
    """One answer of a provider.

    `cursor` may be stored once the page's posts are: an import that goes on from it misses nothing.
    `skipped` counts what is no post of this account (boosts, deleted posts, repeated ids).
    `total` is the provider's own count of the account's posts, where it tells one.
    """

    posts: Sequence[Post]
    cursor: CursorState
    is_last: bool
    skipped: int = 0
    total: int | None = None


@dataclass(frozen=True)
class ImportOutcome:
    """What an import did so far.

    `imported` counts posts that were not stored before, `updated` those stored with another text;
    `first` tells that the account was never imported before.
    """

    imported: int = 0
    updated: int = 0
    seen: int = 0
    skipped: int = 0
    pages: int = 0
    total: int | None = None
    first: bool = True

    @property
    def line(self) -> str:
        """What the run's log says of it.

        >>> ImportOutcome(imported=12, seen=12, skipped=3, pages=1).line
        '12 new posts, 3 skipped'
        """
        if not self.seen and not self.skipped:
            return "no posts yet" if self.first else "no new posts"
        parts = [f"{self.imported} new post{'' if self.imported == 1 else 's'}"]
        parts += [f"{self.updated} changed"] if self.updated else []
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join(parts)


@dataclass(frozen=True)
class StoredPost:
    """A post as the topic extraction reads it."""

    id: str
    account_id: str
    text: str


@dataclass(frozen=True)
class EmbeddedPost:
    """A stored post with its embedding by the model that was asked for."""

    id: str
    account_id: str
    text: str
    embedding: Sequence[float]


@dataclass(frozen=True)
class Topic:
    """A topic of a user over all his accounts; `members` maps the ids of its posts to scores of 0 to 1."""

    label: str
    keywords: Sequence[str]
    members: Mapping[str, float]
    example_post_ids: Sequence[str] = ()

    @property
    def size(self) -> int:
        """How many posts it holds."""
        return len(self.members)
