"""What has been written to a process and not been read, which nobody can see from its output."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from contextlib import suppress
from pathlib import Path


def unread(pid: int) -> dict[str, int]:
    """The bytes that lie in each pipe that a process has an end of, where there are any."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            name = os.readlink(each)
            if name.startswith("pipe:") and (lying := _lying(each)):
                found[name] = lying
    return found


def _lying(end: Path) -> int:
    descriptor = os.open(end, os.O_RDONLY | os.O_NONBLOCK)
    try:
        (lying,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))
        return int(lying)
    finally:
        os.close(descriptor)
