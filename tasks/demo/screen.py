"""What the demo shows in the terminal: a bar for each run, fed by broadcasts, and the tables at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

_NAME = 15  # characters of a person's name in plain lines
_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "expired": "yellow"}


class Screen:
    """Bars where there is a terminal; else a line for each change of status and each tenth of the way."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.fields[person]}", markup=False),
            BarColumn(bar_width=min(28, console.width // 5)),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("[{task.fields[style]}]{task.fields[status]:<11}"),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._people: dict[str, str] = {}
        self._told: dict[str, tuple[Any, ...]] = {}
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def add(self, run_id: str, person: str) -> None:
        """Show a bar for a run."""
        self._people[run_id] = person
        self._tasks[run_id] = self._bars.add_task("", total=100, person=person, status="queued", style="dim")

    def show(self, snapshot: Mapping[str, Any]) -> None:
        """Show a snapshot on its run's bar."""
        task = self._tasks.get(snapshot["run_id"])
        if task is None:
            return
        message = snapshot["message"] or ""
        self._bars.update(
            task,
            completed=snapshot["progress"],
            description=message,
            status=snapshot["status"],
            style=_STYLES.get(snapshot["status"], "cyan"),
        )
        if not self.console.is_terminal:
            self._tell(snapshot, message)

    def line(self, person: str, line: Mapping[str, Any]) -> None:
        """Show a log line above the bars, when it tells of something that went wrong."""
        if line["level"] in ("warning", "error"):
            self.console.print(f"{person}: {line['message']}", style="yellow", markup=False, soft_wrap=True)

    def title(self, text: str) -> None:
        self.console.print(f"[bold]taskcast demo[/]: {escape(text)}", highlight=False)

    def started(self, what: str) -> None:
        """Say that a part is ready, and how long after the start."""
        self.say(f"  {what:<18} ready after {time.monotonic() - self._since:4.1f} s")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def failure(self, text: str) -> None:
        self.console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)

    def _tell(self, snapshot: Mapping[str, Any], message: str) -> None:
        told = (snapshot["status"], snapshot["progress"] // 10)
        if self._told.get(snapshot["run_id"]) != told:
            self._told[snapshot["run_id"]] = told
            person = self._people[snapshot["run_id"]]
            self.console.print(
                f"{person:<{_NAME}} {snapshot['progress']:>3} % {snapshot['status']:<12} {message}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip


def topics_table(person: str, topics: Sequence[Mapping[str, Any]]) -> Table:
    """The topics of a user with their sizes."""
    table = Table(title=f"Topics of {escape(person)}", title_justify="left", min_width=60)
    table.add_column("topic")
    table.add_column("posts", justify="right")
    table.add_column("also")
    for topic in topics:
        table.add_row(escape(topic["label"]), str(topic["size"]), escape(", ".join(topic["keywords"][:4])))
    return table


def rows_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """The rows of the runs, as their users read them."""
    table = Table(title="Rows, read through REST as each user", title_justify="left")
    for column in ("user", "status", "progress", "attempt", "seq", "message"):
        table.add_column(column)
    for person, row in rows.items():
        figures = (str(row[name]) for name in ("status", "progress", "attempt", "seq"))
        table.add_row(escape(person), *figures, escape(row["message"] or ""))
    return table
