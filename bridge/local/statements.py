"""Splits an SQL script into statements, as the CLI's bookkeeping wants them and errors need them."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What a semicolon may hide in; a dollar quote ends at its own tag only.
_TOKEN = re.compile(
    r"""
    (?P<line_comment> --[^\n]*)
  | (?P<block_comment> /\*)
  | (?P<quoted> (?<![\w])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
  | (?P<dollar> \$(?P<tag>[A-Za-z_\x80-\U0010ffff][\w]*)?\$)
  | (?P<word> \b(?:begin\s+atomic|case|end)\b)
  | (?P<name> [\w$]+)
  | (?P<semicolon> ;)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def split_statements(script: str) -> Iterator[tuple[int, str]]:
    """Yield (line number of its first word, statement) for each statement of `script`.

    >>> list(split_statements("select 1;\\nselect ';';"))
    [(1, 'select 1'), (2, "select ';'")]
    """
    start = position = 0
    atomic = 0
    while found := _TOKEN.search(script, position):
        position = _end_of(script, found)
        if word := found["word"]:
            atomic = _depth(atomic, word.lower())
        elif found["semicolon"] and atomic == 0:
            yield from _statement(script, start, found.start())
            start = position
    yield from _statement(script, start, len(script))


def _end_of(script: str, found: re.Match[str]) -> int:
    if found["dollar"]:
        end = script.find(found["dollar"], found.end())
        return len(script) if end < 0 else end + len(found["dollar"])
    if found["block_comment"]:
        return _end_of_comment(script, found.end())
    return found.end()


def _end_of_comment(script: str, position: int) -> int:
    """Block comments nest in Postgres."""
    depth = 1
    for mark in re.finditer(r"/\*|\*/", script[position:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return position + mark.end()
    return len(script)


def _depth(atomic: int, word: str) -> int:
    """Semicolons do not end a statement inside `begin atomic ... end`, where `case ... end` may nest."""
    if word.startswith("begin"):
        return atomic + 1
    if atomic == 0:
        return 0
    return atomic + (1 if word == "case" else -1)


_BLANK = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)


def _statement(script: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    blank = _BLANK.match(script, start, end)
    first = blank.end() if blank else start
    if text := script[first:end].rstrip():
        yield script.count("\n", 0, first) + 1, text
