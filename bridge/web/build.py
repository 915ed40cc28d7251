"""Bundles the page with esbuild: `python -m bridge.web.build` (a second when npm has what it needs)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bridge.errors import LocalStackError, PageNotBuilt
from bridge.local.cache import cache_directory
from bridge.local.npm import installed
from bridge.web import DIST, FILES, SOURCES

_PROJECT = SOURCES.parent


def build() -> None:
    """Bring `DIST` up to date; raises PageNotBuilt when npm or esbuild cannot do their part."""
    if _is_current():
        (DIST / "app.js").touch()  # or make would ask again whenever the environment is newer
        return
    try:
        modules = asyncio.run(installed(_PROJECT, cache_directory()))
    except LocalStackError as error:
        raise PageNotBuilt(f"the page cannot be built: {error}") from error
    DIST.mkdir(exist_ok=True)
    for name in FILES:
        if name != "app.js":
            shutil.copyfile(SOURCES / name, DIST / name)
    _bundle(modules)


def _is_current() -> bool:
    """Whether every built file is newer than every source, as make judges it."""
    sources = [*SOURCES.iterdir(), _PROJECT / "package-lock.json", Path(__file__)]
    built = [DIST / name for name in FILES]
    if not all(path.exists() for path in built):
        return False
    return min(path.stat().st_mtime for path in built) >= max(path.stat().st_mtime for path in sources)


def _bundle(modules: Path) -> None:
    command = [
        str(_esbuild(modules)),
        str(SOURCES / "app.js"),
        "--bundle",
        "--minify",
        "--format=esm",
        "--target=es2022",
        "--log-level=warning",
        f"--outfile={DIST / 'app.js'}",
    ]
    # The packages lie in a cache, so they are not found by walking up from the sources.
    environment = {**os.environ, "NODE_PATH": str(modules)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PageNotBuilt(f"esbuild failed:\n{done.stderr.strip()}")


def _esbuild(modules: Path) -> Path:
    """The program itself, which the package of this platform carries: running it needs no Node."""
    found = [*modules.glob("@esbuild/*/bin/esbuild"), *modules.glob("@esbuild/*/esbuild.exe")]
    if not found:
        raise PageNotBuilt("esbuild has no program for this platform")
    return found[0]


if __name__ == "__main__":
    try:
        build()
    except PageNotBuilt as error:
        sys.exit(f"taskcast: {error}")
