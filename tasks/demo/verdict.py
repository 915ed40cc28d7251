"""Whether the demo kept its promises: what was shown, what the rows say, what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.demo.scene import Expected, Key

_SHOWN = (
    "status", "progress", "current", "total", "step", "message", "attempt", "seq", "result", "result_url",
    "error_code", "error_message",
)  # fmt: skip


def of_run(name: str, shown: Mapping[str, Any], row: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with a run: its row against the last broadcast."""
    if row is None:
        yield f"{name}: no row"
        return
    if row["status"] != "completed":
        yield f"{name}: {row['status']} ({row['error_message']})"
    for column in _SHOWN:
        if row[column] != shown[column]:
            yield f"{name}: {column} was last shown as {shown[column]!r}, the row says {row[column]!r}"


def of_posts(
    name: str,
    expected: Mapping[Key, Expected],
    stored: Mapping[Key, Sequence[str]],
    failed: Mapping[str, str],
) -> Iterator[str]:
    """What is wrong with the posts of a user, and with the accounts that had to fail."""
    for (provider, handle), wanted in expected.items():
        ids = stored.get((provider, handle), ())
        account = f"{name}: {provider}/{handle}"
        if twice := [one for one, count in Counter(ids).items() if count > 1]:
            yield f"{account}: stored twice: {twice[:3]}"
        if len(set(ids)) != wanted.posts:
            yield f"{account}: {len(set(ids))} posts stored, {wanted.posts} expected"
        elif missing := wanted.ids.difference(ids):
            yield f"{account}: not stored: {sorted(missing)[:3]}"
        if wanted.fails != (f"{provider}/{handle}" in failed):
            told = failed.get(f"{provider}/{handle}", "nothing was reported")
            yield f"{account}: expected {'an' if wanted.fails else 'no'} error line, got: {told}"
