"""The first page: plain HTML and supabase-js, bundled into `DIST` by `python -m bridge.web.build`."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import PageNotBuilt

SOURCES = Path(__file__).parent / "src"
DIST = Path(__file__).parent / "dist"
FILES = ("index.html", "style.css", "icon.svg", "app.js")
"""What a server of the page sends, by their names in `DIST`."""


def page_files() -> dict[str, bytes]:
    """Read the built page; raises PageNotBuilt when it has not been built."""
    try:
        return {name: (DIST / name).read_bytes() for name in FILES}
    except FileNotFoundError as error:
        raise PageNotBuilt(f"{error.filename} is missing; run python -m bridge.web.build") from None
