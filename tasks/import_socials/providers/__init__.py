"""Importers, one file for each provider, behind one interface.

>>> for page in importer_for(account, fetcher).pages(account.cursor):
...     store.add_page(account, page)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from tasks.import_socials.http import Fetcher
from tasks.import_socials.models import Account, CursorState, Page, Provider
from tasks.import_socials.providers.bluesky import BlueskyImporter
from tasks.import_socials.providers.feed import FeedImporter
from tasks.import_socials.providers.hackernews import HackerNewsImporter
from tasks.import_socials.providers.mastodon import MastodonImporter
from tasks.import_socials.providers.reddit import RedditImporter


class Importer(Protocol):
    """Fetches the posts of one account."""

    def pages(self, since: CursorState) -> Iterator[Page]:
        """What is new since that cursor, page by page; raises an `AccountError` where it cannot go on."""


_IMPORTERS: Mapping[Provider, Callable[[Account, Fetcher], Importer]] = {
    Provider.MASTODON: MastodonImporter,
    Provider.BLUESKY: BlueskyImporter,
    Provider.HACKERNEWS: HackerNewsImporter,
    Provider.REDDIT: RedditImporter,
    Provider.FEED: FeedImporter,
}


def importer_for(account: Account, fetcher: Fetcher) -> Importer:
    """The importer of the account's provider."""
    return _IMPORTERS[account.provider](account, fetcher)
