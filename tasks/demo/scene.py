"""Who imports what in the demo: the demo's own users, or one user for each provider of a recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from tasks.demo.demo_posts import read_accounts
from tasks.demo.people import Connected
from tasks.demo.providers_server import demo_accounts, providers_server
from tasks.demo.recordings import recordings

_MOST_ACCOUNTS = 100  # of one user, as the database allows

Key = tuple[str, str]
"""(provider, handle) of an account."""


@dataclass(frozen=True)
class Expected:
    """What must be stored of an account after the import, and whether its import must fail."""

    posts: int
    ids: frozenset[str] = frozenset()
    fails: bool = False


@dataclass(frozen=True)
class Scene:
    """The people of a demo, what is expected of their accounts, and what can't be shown."""

    people: Mapping[str, Sequence[Connected]]
    expected: Mapping[str, Mapping[Key, Expected]]
    visitor: Sequence[Connected] = ()
    left_out: Sequence[str] = ()


@contextmanager
def own_scene() -> Iterator[Scene]:
    """The demo's own users, over posts written for it."""
    accounts = read_accounts()
    people: dict[str, list[Connected]] = {}
    expected: dict[str, dict[Key, Expected]] = {}
    with providers_server(accounts) as url:
        for account, seed in zip(accounts, demo_accounts(url, accounts), strict=True):
            connected = Connected(seed.provider, seed.handle, seed.server, seed.token)
            people.setdefault(account.person, []).append(connected)
            posts = 0 if account.revoked else sum(post.own for post in account.posts)
            expected.setdefault(account.person, {})[account.provider, account.handle] = Expected(
                posts, fails=account.revoked
            )
        yield Scene(people, expected, visitor=next(iter(people.values())))


@contextmanager
def recorded_scene(directory: Path) -> Iterator[Scene]:
    """A user for each provider, or a few, over a directory of recorded exchanges."""
    people: dict[str, list[Connected]] = {}
    expected: dict[str, dict[Key, Expected]] = {}
    with recordings(directory) as served:
        for account in served.accounts:
            person = _with_room(people, account.provider.display_name.title().replace(" ", ""))
            connected = Connected(account.provider.value, account.handle, account.server, account.token)
            people.setdefault(person, []).append(connected)
            expected.setdefault(person, {})[account.provider.value, account.handle] = Expected(
                account.posts, account.expected_posts, account.expects_failure
            )
        left_out = [f"{one.provider}/{one.case}: {one.reason}" for one in served.left_out]
        yield Scene(people, expected, visitor=next(iter(people.values())), left_out=left_out)


def _with_room(people: Mapping[str, Sequence[Connected]], name: str) -> str:
    """The name, or the first of `<name> 2`, `<name> 3`, ... whose user may connect one more account."""
    names = chain([name], (f"{name} {number}" for number in count(2)))
    return next(one for one in names if len(people.get(one, ())) < _MOST_ACCOUNTS)
