"""The show: people sign in, their imports run side by side, and what was promised is checked."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from bridge.errors import LocalStackError, PageNotBuilt
from bridge.local.running import RunningStack
from tasks.demo import verdict
from tasks.demo.fleet import Fleet
from tasks.demo.following import Channel, Snapshot
from tasks.demo.people import Directory, Person
from tasks.demo.scene import Scene
from tasks.demo.screen import Screen, rows_table, topics_table
from tasks.demo.web import DemoSite

_LONGEST = 900.0  # seconds that the imports may take
_SETTLED_WITHIN = 10.0
_PROBES = 2


@dataclass(frozen=True)
class Stage:
    """What is running when the show begins."""

    stack: RunningStack
    crew: Fleet
    scene: Scene
    screen: Screen
    flower: str


@dataclass
class Act:
    """One user's import: who, where it is followed, and which run."""

    person: Person
    channel: Channel
    run_id: str = ""
    parallel: bool = False


async def show(stage: Stage, stay: bool, judged: Callable[[list[str]], None]) -> None:
    """Run the imports, say what came of them, and stay for visitors until Ctrl-C when asked to.

    Raises:
        LocalStackError: a process ended by itself, or the imports did not end.
    """
    async with AsyncExitStack() as exits:
        directory = Directory(stage.stack)
        exits.push_async_callback(directory.close)
        judged(await _guarded(stage, _imports(stage, directory)))
        page = await _site(stage, directory, exits)
        _say_where(stage, page)
        if stay:
            stage.screen.say("[bold]Ctrl-C[/] ends everything.")
            await _guard(stage)


async def _guarded(stage: Stage, work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """The result of the work, unless a process ends meanwhile: that explains more than what follows of it."""
    working, guard = asyncio.create_task(work), asyncio.create_task(_guard(stage))
    try:
        await asyncio.wait({working, guard}, timeout=_LONGEST, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and working.exception() is not None:
            await asyncio.wait({guard}, timeout=1)
        if guard.done():
            guard.result()
        if not working.done():
            raise LocalStackError(
                f"the imports have not ended within {_LONGEST:.0f} s; see {stage.crew.logs}"
            )
        return working.result()
    finally:
        guard.cancel()
        working.cancel()
        await asyncio.gather(guard, working, return_exceptions=True)


async def _guard(stage: Stage) -> None:
    """Return never; raise LocalStackError when a process has ended by itself."""
    while True:
        stage.crew.check()
        if stage.stack.process.poll() is not None:
            raise LocalStackError("the embedded stack ended by itself; what it said stands above")
        await asyncio.sleep(0.25)


async def _imports(stage: Stage, directory: Directory) -> list[str]:
    from tasks.import_socials.workflow import import_socials

    screen = stage.screen
    acts = await _audience(stage, directory)
    probe = await _Probe.started(acts[0].person)
    began = time.monotonic()
    with screen:
        for number, act in enumerate(acts):
            act.parallel = number % 2 == 1
            act.run_id = import_socials.delay(act.person.user_id, parallel=act.parallel).id
            screen.add(act.run_id, act.person.name)
            if early := act.channel.snapshots.get(act.run_id):
                screen.show(early)
        for act in acts:
            await act.channel.final(act.run_id)
    took = time.monotonic() - began
    problems = await _verdict(stage, directory, acts)
    _summary(stage, acts, took, await probe.result(), problems)
    return problems


async def _audience(stage: Stage, directory: Directory) -> list[Act]:
    """Everybody signed in and listening, while the processes become ready."""
    signing_in = asyncio.gather(*(_ready(directory, name, stage) for name in stage.scene.people))
    try:
        async for name in stage.crew.ready():
            stage.screen.started(name)
        return await signing_in
    finally:
        signing_in.cancel()
        await asyncio.gather(signing_in, return_exceptions=True)


async def _ready(directory: Directory, name: str, stage: Stage) -> Act:
    person = await directory.person(name, stage.scene.people[name])
    show_line = partial(stage.screen.line, name)
    channel = Channel(person, f"import-socials-{person.user_id}", stage.screen.show, show_line)
    await channel.join()
    return Act(person, channel)


async def _verdict(stage: Stage, directory: Directory, acts: Sequence[Act]) -> list[str]:
    problems: list[str] = []
    rows: dict[str, Mapping[str, Any]] = {}
    for act in acts:
        name = act.person.name
        row = await _settled_row(act)
        if row is not None:
            rows[name] = row
        problems += verdict.of_run(name, act.channel.snapshots[act.run_id], row)
        stored = await directory.posts_of(act.person.user_id)
        failed = await _failures(act)
        problems += verdict.of_posts(name, stage.scene.expected[name], stored, failed)
        topics = await act.person.client.table("topics").select("*").order("size", desc=True).execute()
        stage.screen.console.print(topics_table(name, topics.data))  # type: ignore[arg-type]
    stage.screen.console.print(rows_table(rows))
    return problems


async def _settled_row(act: Act) -> Snapshot | None:
    """The row as its user reads it, once the last broadcast has come as far."""
    deadline = time.monotonic() + _SETTLED_WITHIN
    while True:
        query = act.person.client.table("processing_jobs").select("*").eq("id", act.run_id)
        found: list[Any] = (await query.execute()).data
        row: Snapshot | None = found[0] if found else None
        shown = act.channel.snapshots[act.run_id]
        if (row is not None and row["seq"] == shown["seq"]) or time.monotonic() > deadline:
            return row
        await asyncio.sleep(0.1)


async def _failures(act: Act) -> dict[str, str]:
    """Error lines by account, from the numbered rows, which miss nothing."""
    query = act.person.client.table("processing_job_logs").select("message").eq("job_id", act.run_id)
    lines: list[Any] = (await query.eq("level", "error").execute()).data
    return {line["message"].partition(": ")[0]: line["message"] for line in lines}


async def _site(stage: Stage, directory: Directory, exits: AsyncExitStack) -> str:
    from tasks.import_socials.workflow import import_socials

    async def seed(user_id: str) -> None:
        await directory.connect(user_id, stage.scene.visitor)

    def start(user_id: str, parallel: bool) -> str:
        return str(import_socials.delay(user_id, parallel=parallel).id)

    site = DemoSite(stage.stack.url, stage.stack.anon_key, seed, start)
    exits.push_async_callback(site.stop)
    try:
        await site.start()
    except PageNotBuilt as error:
        return f"not built ({error})"
    return site.url


class _Probe:
    """Measures the way from a progress call in a worker to a callback here."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._ended: set[str] = set()
        self._done = asyncio.Event()

    @classmethod
    async def started(cls, person: Person) -> _Probe:
        """A few runs side by side: each may report three times a second."""
        from tasks.demo.probe import probe

        measuring = cls()
        channel = Channel(person, f"demo-probe-{person.user_id}", measuring._take, lambda line: None)
        await channel.join()
        for _ in range(_PROBES):
            probe.delay(person.user_id)
        return measuring

    async def result(self) -> str:
        """The figures in one line; waits for the probes to end."""
        async with asyncio.timeout(60):
            await self._done.wait()
        cuts = statistics.quantiles(self.delays, n=20)
        return f"p50 {cuts[9] * 1000:.0f} ms, p95 {cuts[18] * 1000:.0f} ms ({len(self.delays)} reports)"

    def _take(self, snapshot: Snapshot) -> None:
        if snapshot["status"] == "completed":
            self._ended.add(snapshot["run_id"])
            if len(self._ended) == _PROBES:
                self._done.set()
        elif snapshot["message"]:
            self.delays.append(time.time() - float(snapshot["message"]))


def _summary(stage: Stage, acts: Sequence[Act], took: float, latency: str, problems: Sequence[str]) -> None:
    screen = stage.screen
    for line in stage.scene.left_out:
        screen.console.print(f"left out: {line}", markup=False, style="dim")
    messages = sum(act.channel.messages for act in acts)
    parallel = sum(act.parallel for act in acts)
    screen.say(
        f"\n{len(acts)} imports in {took:.1f} s, {parallel} of them in parallel parts; "
        f"{messages} snapshots received\nfrom progress() to a client meanwhile: {latency}"
    )
    for problem in problems:
        screen.failure(f"NOT KEPT  {problem}")
    if not problems:
        screen.console.print(
            "Every run completed, every last broadcast equals its row, every post is stored once.",
            style="bold green",
        )


def _say_where(stage: Stage, page: str) -> None:
    places = {
        "page": page,
        "Flower": stage.flower,
        "Supabase (embedded)": stage.stack.url,
        "Postgres": stage.stack.database_url,
        "logs": str(stage.crew.logs),
    }
    for name, place in places.items():
        stage.screen.console.print(f"  {name:<20} {place}", markup=False, soft_wrap=True)
