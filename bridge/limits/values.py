"""Values of limits and times as operators write and read them: `5`, `100/1m`, `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from bridge.errors import ArgumentError
from bridge.limits.declared import LONGEST_PER, Limit, Rate
from bridge.limits.gates import value_of

Value = int | Rate
"""What is in force: slots, or a rate."""

_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|[smhd])", re.ASCII)
_PLAIN: Final = re.compile(r"\d{1,9}(\.\d{1,3})?", re.ASCII)
_HOW_LONG: Final = "write a time such as 30s, 10m or 1h30m"
_HOW_MUCH: Final = "write slots such as 5, or a rate such as 100/1m"


def read_time(text: str) -> timedelta:
    """A time from text; a number alone is seconds.

    >>> read_time("1h30m")
    datetime.timedelta(seconds=5400)

    Raises:
        ArgumentError: it is none, or not longer than nothing.
    """
    if _PLAIN.fullmatch(text):
        text += "s"
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ArgumentError("time", text, _HOW_LONG)
    return checked_time("time", sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta(0)))


def checked_time(field: str, time: timedelta) -> timedelta:
    """The time, when a pause can be as long.

    Raises:
        ArgumentError: it is shorter than a millisecond, or longer than a year.
    """
    if not _UNITS["ms"] <= time <= LONGEST_PER:
        raise ArgumentError(field, str(time), "give a time from a millisecond to a year")
    return time


def read_value(text: str) -> Value:
    """Slots or a rate from what an operator wrote.

    >>> read_value("5"), read_value("100/1m")
    (5, Rate(count=100, per=datetime.timedelta(seconds=60), key=None, name=None, units=None))

    Raises:
        ArgumentError: it is neither, or cannot work.
    """
    count, slash, time = text.partition("/")
    if not re.fullmatch(r"\d{1,12}", count, re.ASCII) or (slash and not time):
        raise ArgumentError("value", text, _HOW_MUCH)
    if not slash:
        return int(count)
    return Rate(int(count), per=read_time(f"1{time}" if time in _UNITS else time))


def kept(value: Value) -> tuple[str, str]:
    """The kind of a value, and how Redis keeps it.

    Raises:
        ArgumentError: as `Limit` and `Rate` do, such as for 0 slots.
    """
    if isinstance(value, Rate):
        return "rate", value_of(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError("value", value, "give slots, or a Rate(count, per=timedelta(...))")
    if value == 0:
        raise ArgumentError("value", value, "give at least 1; to let nothing in, pause it")
    return "slots", value_of(Limit(value))


def understood(kept: str | None) -> Value | None:
    """A value from how Redis keeps it."""
    if kept is None:
        return None
    count, colon, per = kept.partition(":")
    return Rate(int(count), per=timedelta(milliseconds=int(per))) if colon else int(count)


def written(value: Value | None) -> str:
    """A value as operators write it; `none` where it is not known.

    >>> written(Rate(100, per=timedelta(minutes=1)))
    '100/1m'
    """
    if value is None:
        return "none"
    return f"{value.count}/{written_time(value.per)}" if isinstance(value, Rate) else str(value)


def written_time(time: timedelta) -> str:
    """A time as `read_time` reads it, exactly.

    >>> written_time(timedelta(seconds=5400))
    '1h30m'
    """
    return "".join(_parts(time)) or "0s"


def rough_time(time: timedelta) -> str:
    """A time to look at: whole seconds, its two largest units.

    >>> rough_time(timedelta(days=1, hours=2, minutes=3))
    '1d2h'
    """
    return "".join(_parts(timedelta(seconds=int(time.total_seconds())))[:2]) or "0s"


def _parts(left: timedelta) -> list[str]:
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        number, left = divmod(left, _UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return parts
