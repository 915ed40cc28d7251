"""Maintainers only: `python -m tasks.demo.picture docs/demo.svg` draws a real run for the README."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from tasks.demo.command import main
from tasks.demo.screen import Screen

_WIDTH = 100
# Without the web font, so that the picture asks no other server for anything.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_DRAWN_AT = 55.0  # percent of all imports together


class Still(Screen):
    """Shows the bars once, amid the imports, where a terminal would show them all the time."""

    def __init__(self) -> None:
        super().__init__(Console(record=True, width=_WIDTH, file=StringIO(), highlight=False))
        self._drawn = False

    def show(self, snapshot: Mapping[str, Any]) -> None:
        super().show(snapshot)
        shown = self._bars.tasks
        if not self._drawn and sum(task.percentage for task in shown) >= _DRAWN_AT * len(shown) > 0:
            self._drawn = True
            self.console.print("\n", self._bars, "\n", sep="")

    def _tell(self, snapshot: Mapping[str, Any], message: str) -> None:
        """Nothing: the bars say it."""


def draw(target: Path) -> int:
    """Run the demo and write what it printed."""
    screen = Still()
    code = main(["--exit"], screen)
    drawn = screen.console.export_svg(title="make demo", code_format=_FORMAT)
    covered = re.sub(r"(?<=password&#160;)[\w-]+", lambda found: "." * len(found[0]), drawn)
    target.write_text(covered, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(draw(Path(sys.argv[1])))
