"""Postgres refuses to run as root: which account it steps down to, and what that account can read."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import LocalStackError


@dataclass(frozen=True)
class Account:
    """An unprivileged account of this machine."""

    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether this account can read `path`, judged by the mode bits for others."""
        path = path.absolute()
        return all(_others(parent, stat.S_IXOTH) for parent in path.parents) and _others(path, stat.S_IROTH)

    def own(self, directory: Path) -> None:
        """Create `directory` for this account alone."""
        directory.mkdir(mode=0o700)
        os.chown(directory, self.uid, self.gid)


def unprivileged_account() -> Account | None:
    """The account to step down to when this process is root, else None."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise LocalStackError(
            "Postgres refuses to run as root and this machine has no account `nobody`; start as another user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def readable_copy(trees: Mapping[Path, str], probe: Path, copy: Path, account: Account) -> Path | None:
    """Copy each tree to its place below `copy` and return that, or None when `account` can read `probe`."""
    if account.reaches(probe):
        return None
    if not copy.exists():
        scratch = copy.with_name(f"{copy.name}.{os.getpid()}")
        scratch.mkdir(parents=True)
        for tree, place in trees.items():
            shutil.copytree(tree, scratch / place, symlinks=True)
        _open_to_others(scratch)
        move_into_place(scratch, copy)
    return copy


def move_into_place(scratch: Path, final: Path) -> None:
    """Rename a finished directory to its name in the cache; the first of several processes wins."""
    try:
        scratch.rename(final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(scratch, ignore_errors=True)


def _others(path: Path, bit: int) -> bool:
    return bool(path.stat().st_mode & bit)


def _open_to_others(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o055 if mode & 0o100 else mode | 0o044)
