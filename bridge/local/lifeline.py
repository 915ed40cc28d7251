"""Ends every part when the stack's own process dies, however it dies, and removes its temporary data.

A pipe is the signal: the kernel closes its write end with the process that holds it, SIGKILL included. A
few lines of `sh` wait at the read end in a session of their own. Linux' PR_SET_PDEATHSIG would do for
Linux alone, and is cleared by the very change of user that Postgres needs.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

# Fast, then immediate shutdown in Postgres' terms; TERM would make it wait for its clients.
_SCRIPT = """
groups=
while read -r verb group; do
  if [ "$verb" = add ]; then groups="$groups $group"; continue; fi
  rest=
  for g in $groups; do [ "$g" = "$group" ] || rest="$rest $g"; done
  groups=$rest
done
alive() { for g in $groups; do kill -s 0 -- "-$g" 2>/dev/null && return 0; done; return 1; }
for signal in INT QUIT KILL; do
  alive || break
  for g in $groups; do kill -s "$signal" -- "-$g" 2>/dev/null; done
  n=0; while alive && [ $n -lt 20 ]; do sleep 0.1; n=$((n+1)); done
done
[ -z "$1" ] || rm -rf -- "$1"
"""


class Lifeline:
    """One waiting shell; tell it of every process group that must not outlive this process."""

    def __init__(self, remove: Path | None = None, hold: int | None = None) -> None:
        """`remove` is deleted after the last part is gone; till then the lock `hold` stays locked too."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "taskcast-lifeline", str(remove or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if hold is None else (hold,),
        )

    def add(self, group: int) -> None:
        """Watch over a process group."""
        self._tell(f"add {group}")

    def drop(self, group: int) -> None:
        """Forget a process group that has ended, since its number may be given to another."""
        self._tell(f"drop {group}")

    def end(self) -> None:
        """End what is still watched over and wait for it."""
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.close()
            self._shell.wait(timeout=15)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._shell.send_signal(signal.SIGKILL)
            self._shell.wait()

    def _tell(self, line: str) -> None:
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.write(f"{line}\n".encode())
            self._shell.stdin.flush()
