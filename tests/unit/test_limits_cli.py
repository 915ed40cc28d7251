"""Following limits in the terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.limits import cli as limits_cli
from bridge.limits.control import LimitsUnavailable


def looks(*outcomes: str | BaseException) -> Callable[[], str]:
    """What each look gives; the last one is Ctrl-C."""
    left = iter([*outcomes, KeyboardInterrupt()])

    def look() -> str:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return look


def test_an_outage_is_told_once_and_a_new_one_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits_cli.time, "sleep", lambda _: None)
    away = LimitsUnavailable("no answer")
    with pytest.raises(KeyboardInterrupt):
        limits_cli._follow(looks(away, away, "table", away, away))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("table\n", "taskcast: no answer\n" * 2)
