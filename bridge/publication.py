"""Whose a run is and where it reports, found from its message, its arguments and the run around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bridge.events import run_uuid
from bridge.header import Header, counted
from bridge.lifecycle import Identity
from bridge.options import Declaration
from bridge.run import Run
from bridge.text import public, shorten

_INPUT_FILE = "input_file"
_LONGEST = 2_000
_NOBODYS = Identity(run_id="", root_id="", task="")

Given = tuple[Iterable[Any], Mapping[str, Any]]
"""The positional and the named arguments of a run."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A run about to be published, and how many equal parts it adds to the run it reports to."""

    identity: Identity
    parts: int


def publication(
    task: str,
    declaration: Declaration,
    max_retries: int | None,
    headers: Mapping[str, Any],
    body: Any,
    queue: str | None,
    around: Run | None,
) -> Publication:
    """The identity of a run that is published from within `around`, or from app code."""
    args, kwargs, embed = body if isinstance(body, tuple) and len(body) == 3 else ((), {}, {})
    given = args or (), kwargs or {}
    identity = identify(task, declaration, max_retries, headers, given, queue, around)
    return Publication(identity, _parts(identity, embed or {}, around))


def identify(
    task: str,
    declaration: Declaration,
    max_retries: int | None,
    headers: Mapping[str, Any],
    given: Given | None,
    queue: str | None,
    around: Run | None = None,
) -> Identity:
    """The identity of a run: its header's word first, then its arguments', then the run's around it.

    Args:
        given: its arguments, or None where nobody has unpacked them.

    Raises:
        ArgumentError: an argument that names the owner or the channel is unusable.
    """
    known = Header.read(headers)
    arguments = declaration.arguments(*given) if given and _is_told_by_arguments(known, declaration) else {}
    run_id = run_uuid(headers["id"])
    parent_id = known.parent or _parent(run_id, around)
    if parent_id == run_id:  # the body of a chord that goes on under its caller's id
        parent_id = None
    inherited = around.identity if around is not None else _NOBODYS
    input_file = arguments.get(_INPUT_FILE)
    return Identity(
        run_id=run_id,
        root_id=run_uuid(headers.get("root_id") or headers["id"]),
        task=_text(task) or "unknown",
        queue=_text(queue),
        owner=known.user_id or declaration.owner_of(arguments) or inherited.owner,
        channel=known.channel or _channel(declaration, arguments) or inherited.channel,
        parent_id=parent_id,
        max_attempts=None if max_retries is None else counted(max_retries) + 1,
        input_file=_text(input_file),
        metadata=known.metadata,
        tags=known.tags,
        earlier=known.earlier,
    )


def _is_told_by_arguments(known: Header, declaration: Declaration) -> bool:
    """Whether anything is left for the arguments to tell; to match them with their names takes a while."""
    has_channel = known.channel is not None or declaration.channel is None
    return known.user_id is None or not has_channel or declaration.takes(_INPUT_FILE)


def _text(value: Any) -> str | None:
    return _cleaned(value[:_LONGEST]) if isinstance(value, str) else None


@lru_cache(maxsize=512)  # the same few names of tasks and queues, in every run
def _cleaned(text: str) -> str:
    return shorten(public(text))


def _channel(declaration: Declaration, arguments: Mapping[str, Any]) -> str | None:
    return declaration.channel_of(arguments) if arguments else None


def _parent(run_id: str, around: Run | None) -> str | None:
    """What is published by a body is its child; what follows after it (chain, chord) is its sibling."""
    if around is None:
        return None
    if around.in_body and around.run_id != run_id:
        return around.run_id
    return around.identity.parent_id


def _parts(identity: Identity, embed: Mapping[str, Any], around: Run | None) -> int:
    if identity.parent_id is None or around is None or around.run_id == identity.run_id:
        return 1
    if around.in_body:
        return 1 + len(embed.get("chain") or ())
    return 0 if around.chained else 1  # a chain's first link has announced them all
