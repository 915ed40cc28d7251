# mypy: ignore-errors
"""Sets the wall clock of a Python process off, from its first line on; needs no rights and no library.

Python imports a module of this name at its start when its folder is on PYTHONPATH. Monotonic time, other
processes and Redis stay as they are; pool processes and the lease keeper inherit the offset.
"""

import datetime
import os
import time

OFFSET = "TASKCAST_CHAOS_CLOCK"


class _IsDatetime(type):
    """What the interpreter's own C code makes is an instance too."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass):
        return issubclass(subclass, _datetime)


_time, _time_ns, _datetime, _date = time.time, time.time_ns, datetime.datetime, datetime.date
_offset = float(os.environ.get(OFFSET, "0"))


class _Datetime(_datetime, metaclass=_IsDatetime):
    __slots__ = ()  # or C extensions would find another size than they were made for

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls):
        return cls.now()


if _offset:
    time.time = lambda: _time() + _offset
    time.time_ns = lambda: _time_ns() + int(_offset * 1e9)
    _Datetime.__name__ = _Datetime.__qualname__ = "datetime"
    _Datetime.__module__ = "datetime"
    datetime.datetime = _Datetime
