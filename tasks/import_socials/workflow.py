"""Import a user's connected accounts and find their topics: the only file here that knows Celery.

One account after the other in one run; or in parallel, a group of runs that share the channel, imports
on the I/O pool and AI steps on the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded

from bridge import LeaseLost, Limit
from bridge.current import current_run, detached_run
from bridge.errors import KeyRefused, PublicError, SchemaMissing, SupabaseUnavailable
from bridge.run import Run
from config.settings import settings
from tasks.celery import app
from tasks.import_socials.classifying import embed_account, refresh_topics
from tasks.import_socials.embeddings import Embedder, embedder_from
from tasks.import_socials.http import Fetcher, FetchPolicy
from tasks.import_socials.importing import import_account as import_pages
from tasks.import_socials.models import Account
from tasks.import_socials.resuming import Journal, Stage, Summary
from tasks.import_socials.store import Store
from tasks.import_socials.supabase_store import SupabaseStore

log = logging.getLogger(__name__)

# Rows and posts live in one project: while it is away there is nothing to import into.
_PATIENT: dict[str, Any] = {
    "autoretry_for": (SupabaseUnavailable,),
    "retry_backoff": 2,
    "retry_backoff_max": 120,
    "max_retries": 8,
}

# Not an account's fault: the run fails, is tried again, or goes on elsewhere.
_OF_THE_RUN = (SupabaseUnavailable, KeyRefused, SchemaMissing, SoftTimeLimitExceeded, LeaseLost)

_NAMED = 3  # failed accounts that the last message names; the log names all


@app.task(
    bind=True,
    name="tasks.import_socials.import_socials",
    concurrency=5,  # as the article has it; the others wait in line
    channel="import-socials-{user_id}",
    public_result=True,
    **_PATIENT,
)
def import_socials(self: Any, user_id: str, parallel: bool = False) -> Any:
    """Import every connected account of the user, then find the topics of all posts.

    An attempt that follows an interrupted one passes over the accounts that are done, and goes on with the
    next page of the one that was in work.

    Returns {"accounts": [...], "imported": posts, "topics": [labels]}.
    """
    with opened_store() as store:
        accounts = store.accounts(user_id)
        if not accounts:
            self.log("no connected accounts yet", "warning")
        if parallel and len(accounts) > 1:
            header = group(
                chain(fetch_account.si(user_id, one.id), classify_account.s(user_id, one.id))
                for one in accounts
            )
            return self.replace(chord(header, gather_topics.s(user_id)))
        journal = Journal.read(self.last_checkpoint)
        summaries = [
            journal.done.get(account.id) or _one_account(store, account, _Share(i, len(accounts)), journal)
            for i, account in enumerate(accounts)
        ]
        return _finish(store, user_id, summaries)


@app.task(
    bind=True,
    name="tasks.import_socials.fetch_account",
    concurrency=[Limit(20), Limit(5, key="user_id")],  # a user with forty accounts holds up nobody
    **_PATIENT,
)
def fetch_account(self: Any, user_id: str, account_id: str) -> Summary:
    """Import the posts of one account."""
    with opened_store() as store:
        account = _account(store, user_id, account_id)
        return _import(store, account, _Share(0, 1, parts=1), Journal.read(self.last_checkpoint))


@app.task(bind=True, name="tasks.import_socials.classify_account", **_PATIENT)
def classify_account(self: Any, summary: Summary, user_id: str, account_id: str) -> Summary:
    """Embed the posts of one account."""
    with opened_store() as store:
        if "error" not in summary:
            account = _account(store, user_id, account_id)
            journal = Journal.read(self.last_checkpoint)
            summary |= _classify(store, account, _Share(0, 1, parts=1), journal)
        return summary


@app.task(bind=True, name="tasks.import_socials.gather_topics", public_result=True, **_PATIENT)
def gather_topics(self: Any, summaries: list[Summary], user_id: str) -> Summary:
    """Find the topics over all accounts; goes on under the id of the import."""
    if self.last_checkpoint is None:
        for summary in summaries:
            _tell(summary)
        self.checkpoint("told")
    with opened_store() as store:
        return _finish(store, user_id, summaries)


@contextmanager
def opened_store() -> Iterator[Store]:
    """The store on this deployment's Supabase project.

    Raises:
        PublicError: the worker has no URL or key.
    """
    url, key = settings().supabase_url, settings().supabase_key
    if url is None or key is None:
        log.error("set SUPABASE_URL and SUPABASE_SECRET_KEY for the workers that import")
        raise PublicError("The import is not set up: no Supabase project is configured.", code="not_set_up")
    with SupabaseStore.connect(url, key.get_secret_value()) as store:
        yield store


def embedder() -> Embedder:
    """The embedder of this deployment."""
    own = settings()
    key = own.openai_api_key.get_secret_value() if own.openai_api_key else None
    return embedder_from(key, base_url=own.openai_base_url, model=own.openai_embedding_model)


class _Share:
    """The stretch of the run's bar that one account's work fills; `parts` steps an account."""

    _FINE = 1_000

    def __init__(self, index: int, accounts: int, parts: int = 2) -> None:
        self._start, self._of, self._parts = index * parts, accounts * parts, parts

    def show(self, part: int, done: int, of: int | None, message: str | None = None) -> None:
        """Show `done` of `of` within a part (from 0)."""
        within = min(1.0, done / of) if of else 0.0
        current = int((self._start + min(part, self._parts - 1) + within) * self._FINE)
        _run().progress(current, self._of * self._FINE, message)


def _one_account(store: Store, account: Account, share: _Share, journal: Journal) -> Summary:
    summary = _import(store, account, share, journal)
    if "error" not in summary:
        summary |= _classify(store, account, share, journal)
    _tell(summary)
    journal.finish(account, summary)
    _run().checkpoint(journal.write())
    return summary


def _import(store: Store, account: Account, share: _Share, journal: Journal) -> Summary:
    """Import one account; what goes wrong is its own summary, and the others go on."""
    message = f"Importing {account.name}..."
    _run().step(f"Importing {account.name}")
    stage = journal.stage(account)
    share.show(0, stage.outcome.seen, stage.outcome.total, message)
    try:
        if not stage.imported:
            stage = _import_pages(store, account, share, journal)
        outcome = stage.outcome
        return {"account": account.key, "imported": outcome.imported, "line": outcome.line}
    except _OF_THE_RUN:
        raise
    except Exception as error:
        return _failure(store, account, error)


def _import_pages(store: Store, account: Account, share: _Share, journal: Journal) -> Stage:
    policy = FetchPolicy(allow_private=settings().providers_allow_private_hosts)
    with Fetcher(policy) as fetcher:
        for outcome in import_pages(account, store, fetcher, journal.stage(account).outcome):
            seen = f" {outcome.seen} posts" if outcome.seen else ""
            share.show(0, outcome.seen, outcome.total, f"Importing {account.name}...{seen}")
            journal.reached(account, outcome=outcome)
            _run().checkpoint(journal.write())
    store.record_import(account, None)
    stage = journal.reached(account, imported=True)
    _run().checkpoint(journal.write())
    return stage


def _classify(store: Store, account: Account, share: _Share, journal: Journal) -> Summary:
    message = f"Extracting topics for {account.name}..."
    _run().step(f"Extracting topics for {account.name}")
    before = journal.stage(account).embedded
    share.show(1, 0, None, message)
    try:
        for done, of in embed_account(account, store, embedder()):
            share.show(1, before + done, before + of, message)
            journal.reached(account, embedded=before + done)
            _run().checkpoint(journal.write())
        return {}
    except _OF_THE_RUN:
        raise
    except Exception as error:
        return _failure(store, account, error)


def _failure(store: Store, account: Account, error: Exception) -> Summary:
    if isinstance(error, PublicError):
        line = str(error)
    else:
        log.exception("import of %s failed", account.key)
        line = f"{account.key}: an unexpected error ({type(error).__name__})"
    store.record_import(account, line)
    return {"account": account.key, "imported": 0, "error": line}


def _tell(summary: Summary) -> None:
    if "error" in summary:
        _run().log(summary["error"], "error")
    else:
        _run().log(f"{summary['account']}: {summary['line']}")


def _finish(store: Store, user_id: str, summaries: list[Summary]) -> Summary:
    run = _run()
    run.step("Finding topics over all accounts")
    run.progress(message="Finding topics over all accounts...")
    topics = refresh_topics(user_id, store, embedder().model)
    labels = [topic.label for topic in topics]
    run.log(f"topics: {', '.join(labels)}" if labels else "no topics yet")
    failed = [one["account"] for one in summaries if "error" in one]
    run.progress(1, 1, _last_word(len(summaries), failed, len(labels)))
    return {
        "accounts": [{"account": one["account"], "error": one.get("error")} for one in summaries],
        "imported": sum(one["imported"] for one in summaries),
        "topics": labels,
    }


def _last_word(accounts: int, failed: list[str], topics: int) -> str:
    text = f"{accounts - len(failed)} of {accounts} accounts imported, {topics} topics"
    if not failed:
        return text
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{text}; not imported: {', '.join(failed[:_NAMED])}{more}"


def _account(store: Store, user_id: str, account_id: str) -> Account:
    for account in store.accounts(user_id):
        if account.id == account_id:
            return account
    raise PublicError("The account was disconnected.", code="account_removed")


def _run() -> Run:
    return current_run() or detached_run()
