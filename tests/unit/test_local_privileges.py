"""Stepping down from root: what the other account can reach."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.local.privileges import Account, readable_copy, unprivileged_account

NOBODY = Account(65534, 65534)


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """pytest's own directories are closed to others."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    return tmp_path


@pytest.fixture
def tree(open_path: Path) -> Path:
    tree = open_path / "venv" / "package"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "postgres").write_text("binary")
    (tree / "bin" / "postgres").chmod(0o755)
    return tree


def test_a_file_behind_a_closed_directory_is_out_of_reach(tree: Path) -> None:
    assert NOBODY.reaches(tree / "bin" / "postgres")
    tree.parent.chmod(0o700)
    assert not NOBODY.reaches(tree / "bin" / "postgres")


def test_a_file_that_is_closed_itself_is_out_of_reach(tree: Path) -> None:
    (tree / "bin" / "postgres").chmod(0o700)
    assert not NOBODY.reaches(tree / "bin" / "postgres")


def test_what_is_within_reach_is_not_copied(tree: Path, open_path: Path) -> None:
    copy = open_path / "copy"
    assert readable_copy({tree: "package"}, tree / "bin" / "postgres", copy, NOBODY) is None
    assert not copy.exists()


def test_what_is_out_of_reach_is_copied_once_and_opened(tree: Path, open_path: Path) -> None:
    probe, copy = tree / "bin" / "postgres", open_path / "cache" / "copy"
    probe.chmod(0o700)
    tree.parent.chmod(0o700)
    assert readable_copy({tree: "package"}, probe, copy, NOBODY) == copy
    assert NOBODY.reaches(copy / "package" / "bin" / "postgres")
    probe.write_text("changed")
    assert readable_copy({tree: "package"}, probe, copy, NOBODY) == copy
    assert (copy / "package" / "bin" / "postgres").read_text() == "binary"
    assert os.listdir(copy.parent) == ["copy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="only for ordinary users")
def test_an_ordinary_user_stays_himself() -> None:
    assert unprivileged_account() is None
