"""A run that goes on as another signature keeps its count of attempts.

Celery counts the attempts of a replacement from 1 again, under the same id; to the row those would be
reports of an attempt long past, and refused.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, chord, group
from celery.canvas import Signature, _chain

from bridge.header import HEADER


def counting_on(app: Celery, signature: Any, earlier: int) -> Any:
    """The signature, its last part told that `earlier` attempts were made under its id."""
    if isinstance(signature, group):  # as Celery itself turns it into a chord
        signature = signature | app.tasks["celery.accumulate"].s(index=0)
    last = _last(signature)
    if isinstance(last, Signature):
        headers = last.options.get("headers") or {}
        told = {**(headers.get(HEADER) or {}), "earlier": earlier}
        last.options["headers"] = {**headers, HEADER: told}
    return signature


def _last(signature: Any) -> Any:
    while True:
        if isinstance(signature, _chain) and signature.tasks:
            signature = signature.tasks[-1]
        elif isinstance(signature, chord):
            signature = signature.body
        else:
            return signature
