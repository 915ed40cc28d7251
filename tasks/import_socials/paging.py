"""Walks a provider's listing, newest first, so that nothing is fetched twice and nothing is lost.

An import goes down from the newest post to the newest one of the import before. Its cursor, stored
with every page, tells how far it came: an import that was interrupted goes on downwards from there
first, and then fetches what was posted since.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tasks.import_socials.errors import RequestRefused, UnknownAccount
from tasks.import_socials.models import CursorState, Page, Post

_MAX_IDLE_PAGES = 10
"""Pages in a row that bring no unknown item; a server that goes on beyond is broken or plays with us."""

MAX_PAGES = 1_000
"""Pages of one walk; a larger account is imported in several runs, a server that invents posts stops here."""


class Entry(NamedTuple):
    """One item of a listing; `key` orders items by age, `post` is None where it is none to be stored.

    Keys are compared by length, then as text: ids that count up, or times of one fixed width.
    """

    key: str
    id: str
    post: Post | None


@dataclass(frozen=True)
class Listing:
    """One answer of a provider; `next` asks for the following, None where this is the end."""

    entries: Sequence[Entry]
    next: str | None
    total: int | None = None


@dataclass(frozen=True)
class Cursor:
    """How far an account is imported.

    Everything up to `mark` is stored (`known` are the ids that have this very key). While an import
    is under way, everything from `newest` down to `next` is stored too.
    """

    mark: str = ""
    known: tuple[str, ...] = ()
    newest: str = ""
    newest_known: tuple[str, ...] = ()
    next: str | None = None

    @classmethod
    def read(cls, state: CursorState) -> Cursor:
        """The cursor of a row; one that cannot be read means a first import."""
        position = state.get("next")
        return cls(
            mark=_text(state.get("mark")),
            known=_texts(state.get("known")),
            newest=_text(state.get("newest")),
            newest_known=_texts(state.get("newest_known")),
            next=position if isinstance(position, str) else None,
        )

    def write(self) -> dict[str, Any]:
        """The cursor as a row holds it."""
        state = {"mark": self.mark, "known": list(self.known)}
        if self.next is not None:
            state |= {"newest": self.newest, "newest_known": list(self.newest_known), "next": self.next}
        return state

    def is_new(self, entry: Entry) -> bool:
        """Whether the entry came after everything that is stored."""
        if entry.key == self.mark:
            return entry.id not in self.known
        return _age(entry.key) > _age(self.mark)

    def with_seen(self, entry: Entry) -> Cursor:
        """The cursor with the entry taken into account as perhaps the newest of this walk."""
        if entry.key == self.newest:
            return replace(self, newest_known=(*self.newest_known, entry.id))
        if _age(entry.key) > _age(self.newest):
            return replace(self, newest=entry.key, newest_known=(entry.id,))
        return self

    def finished(self) -> Cursor:
        """The cursor after the walk reached the mark."""
        if _age(self.newest) < _age(self.mark) or not self.newest:
            return Cursor(self.mark, self.known)
        known = self.newest_known if self.newest != self.mark else (*self.known, *self.newest_known)
        return Cursor(self.newest, tuple(dict.fromkeys(known)))


Fetch = Callable[[str | None, Cursor], Listing]
"""Fetches one answer: from the top (None) or from a `Listing.next`; the cursor tells what is known."""


def newest_first(fetch: Fetch, state: CursorState) -> Iterator[Page]:
    """The pages of everything that is not imported yet."""
    cursor = Cursor.read(state)
    interrupted = _go_on(fetch, cursor)
    cursor = cursor if interrupted else Cursor(cursor.mark, cursor.known)
    if interrupted:
        for page in _walk(fetch, cursor, interrupted):
            cursor = Cursor.read(page.cursor)
            yield replace(page, is_last=page.is_last and cursor.next is not None)
        if cursor.next is not None:
            return
    yield from _walk(fetch, cursor, fetch(None, cursor))


def _go_on(fetch: Fetch, cursor: Cursor) -> Listing | None:
    """The answer where the last import was interrupted; None where the provider forgot that place."""
    if cursor.next is None:
        return None
    try:
        listing = fetch(cursor.next, cursor)
    except (RequestRefused, UnknownAccount):
        return None
    # An empty answer may mean that the post the place was named after is deleted (Reddit).
    return listing if listing.entries else None


def _walk(fetch: Fetch, cursor: Cursor, listing: Listing) -> Iterator[Page]:
    seen: set[str] = set()
    visited: set[str] = set()
    idle = 0
    for number in itertools.count(1):
        before, posts, skipped = len(seen), [], 0
        for entry in listing.entries:
            if not cursor.is_new(entry):
                continue
            if entry.id in seen or entry.post is None:
                skipped += 1
            else:
                posts.append(entry.post)
            if entry.id not in seen:
                seen.add(entry.id)
                cursor = cursor.with_seen(entry)
        idle = 0 if len(seen) > before else idle + 1
        following = None if idle >= _MAX_IDLE_PAGES or _is_end(listing, cursor, visited) else listing.next
        cursor = cursor.finished() if following is None else replace(cursor, next=following)
        is_last = following is None or number >= MAX_PAGES
        yield Page(posts, cursor.write(), is_last, skipped, listing.total)
        if following is None or is_last:
            return
        listing = fetch(following, cursor)


def _is_end(listing: Listing, cursor: Cursor, visited: set[str]) -> bool:
    if listing.next is None or listing.next in visited:
        return True
    visited.add(listing.next)
    # The last entry is the oldest one; pinned posts stand at the top whatever their age.
    oldest = listing.entries[-1].key if listing.entries else None
    return bool(cursor.mark) and oldest is not None and _age(oldest) < _age(cursor.mark)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(values: object) -> tuple[str, ...]:
    return tuple(map(str, values)) if isinstance(values, list | tuple) else ()


def _age(key: str) -> tuple[int, str]:
    return len(key), key
