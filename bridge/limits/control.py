"""Limits while everything runs: looked at, changed, paused and resumed, durably and without a restart."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis import Redis, RedisError

from bridge.errors import ArgumentError, TaskcastError
from bridge.limits.control_scripts import ControlScripts, Known
from bridge.limits.survey import NOTHING, LimitState, Tally, states
from bridge.limits.targets import WHOLE, Targets, possible
from bridge.limits.values import Value, checked_time, kept, read_value, understood
from bridge.settings import BridgeSettings

if TYPE_CHECKING:
    from bridge.extension import Bridge


class LimitsUnavailable(TaskcastError):
    """The limits' Redis did not answer; what was asked for is not known to be done."""


class LimitControl:
    """What `app.bridge.limits` offers; a change is kept in Redis, and every worker goes by it at once.

    It lasts as long as what Redis holds, over restarts of Redis where that writes to disk (`appendonly yes`).
    A pause of a task that has no limit is seen within two seconds.
    A target is a task, a limit or a rate by its name, or one `key` of a limit or rate.

    >>> app.bridge.limits.set("openai", 50)
    >>> app.bridge.limits.pause("tasks.import_socials:user_id", key="7d1c")

    Raises:
        ArgumentError: an unknown name, or a value that cannot work.
        LimitsUnavailable: Redis did not answer.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._url, self._scripts = bridge.settings.limits_redis_url, _scripts(bridge.settings)
        self._targets = Targets(bridge, lambda: self._declared(self._scripts.known()))

    def survey(self, keys: int = 5) -> list[LimitState]:
        """Each limit and rate with its `keys` fullest keys, and each task that is paused."""
        scripts, split = self._scripts, self._targets.split
        with self._asking():
            known = scripts.known()
            declared = {**self._bridge.declared_values(), **known.declared}
            tally = Tally.of({*declared, *known.overrides}, known, scripts.lines(), scripts.held())
            shown = {limit: tally.fullest(limit, keys, known.paused) for limit in tally.counts}
            split |= {limit for limit in shown if tally.is_split(limit)}
            gates = [f"{limit}|{key}" for limit in shown for key in shown[limit]]
            gates += [f"{limit}|" for limit in shown if limit not in split]
            gates = [gate for gate in gates if gate.startswith(("slots|", "rate|"))]
            used = dict(zip(gates, scripts.used(gates), strict=True))
        used |= {f"{limit}|": tally.held(limit) for limit in shown if _has_total(limit, split)}
        return list(states(known, declared, tally, used, split, shown))

    def set(self, name: str, value: Value | str) -> Value | None:
        """Put a value in force over the declared one, until it is reset; returns the one before.

        Fewer slots than are taken end nothing: what executes goes on, what waits waits until there is room.

        >>> app.bridge.limits.set("openai", Rate(100, per=timedelta(minutes=1)))    # or "100/1m"
        """
        kind, text = kept(read_value(value) if isinstance(value, str) else value)
        with self._asking():
            field = next((each for each in self._targets.limit(name) if each.startswith(kind)), None)
            if field is None:
                told = (
                    "counts slots; give a number" if kind == "rate" else "is a rate; give one, such as 100/1m"
                )
                raise ArgumentError("value", str(value), f"{name} {told}")
            before = self._declared(self._scripts.known()).get(field)
            self._scripts.override(field, text)
            self._scripts.open_all(field)
        return understood(before)

    def reset(self, name: str) -> bool:
        """Put the declared value in force again; returns whether another one was."""
        with self._asking():
            changed = [field for field in self._targets.limit(name) if self._scripts.override(field, None)]
            for field in changed:
                self._scripts.open_all(field)
        return bool(changed)

    def pause(self, target: str, time: timedelta | None = None, *, key: Any = WHOLE) -> bool:
        """Let nothing in for this time, or until it is resumed; what executes goes on.

        Returns whether that is new; a pause that lasts longer stays as it is.
        """
        if time is not None:
            checked_time("time", time)
        with self._asking():
            return self._scripts.pause(self._targets.pausable(target, key), time)

    def resume(self, target: str, *, key: Any = WHOLE) -> bool:
        """End a pause, be it by `pause` or by `hold`; returns whether there was one."""
        with self._asking():
            ended = [each for each in possible(target, key) if self._scripts.resume(each)]
            if not ended:
                self._targets.pausable(target, key)  # a mistyped name is told
            for each in ended:
                self._scripts.open([each])
        return bool(ended)

    def hold(self, name: str, seconds: float | timedelta, *, key: Any = WHOLE) -> bool:
        """Let nothing in for a limit or rate for so long, as a provider's `Retry-After` asks.

        Returns whether that is new; a longer pause stays as it is, and 0 seconds pause nothing.
        """
        time = _time(seconds)
        with self._asking():
            target = self._targets.whole_or_key(name, key)
            return bool(time) and self._scripts.pause(target, time)

    def assume_nothing_runs(self) -> None:
        """Let limited runs in at once on a Redis that has just been made; see `assume_nothing_runs`."""
        assume_nothing_runs(self._bridge.settings)

    def _declared(self, known: Known) -> dict[str, str]:
        """The values in force, of limits that workers or this process declare."""
        return {**self._bridge.declared_values(), **known.declared, **known.overrides}

    def _asking(self) -> AbstractContextManager[None]:
        return _asking(self._url)


def assume_nothing_runs(settings: BridgeSettings) -> None:
    """Tell a Redis that has just been made that no worker of this deployment executes anything.

    One that knows nothing otherwise lets limited runs wait for one lease: workers may be executing some
    that they have not told it of yet.
    """
    scripts = _scripts(settings)
    with _asking(settings.limits_redis_url):
        scripts.declare({}, settings.limits.lease, settings.limits.grant, nothing_runs=True)
        scripts.open(["start||"])


def _scripts(settings: BridgeSettings) -> ControlScripts:
    seconds = settings.limits.timeout.total_seconds()
    redis = Redis.from_url(settings.limits_redis_url, socket_timeout=seconds, socket_connect_timeout=seconds)
    return ControlScripts(redis, settings.outbox.prefix)


@contextmanager
def _asking(url: str) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        problem = f"the limits' Redis at {where} does not answer ({type(error).__name__})"
        raise LimitsUnavailable(problem) from error


def _has_total(limit: str, split: Container[str]) -> bool:
    """Whether what all keys of a limit have taken is worth counting; those of a rate have windows apart."""
    return limit in split and limit.startswith("slots|")


def _time(seconds: Any) -> timedelta:
    time = seconds
    if not isinstance(seconds, timedelta):
        try:
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError
            time = timedelta(seconds=seconds)
        except (TypeError, ValueError, OverflowError) as error:  # such as nan
            raise ArgumentError("seconds", seconds, "give seconds or a timedelta") from error
    return checked_time("seconds", time) if time else NOTHING
