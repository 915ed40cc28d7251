"""What a run has to pass is told by its arguments, or the run ends with a clear code."""

from __future__ import annotations

import pickle
import traceback
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import Limit, PublicError, Rate
from bridge.lifecycle import describe
from bridge.limits.gates import (
    LONGEST_KEY,
    BadKey,
    BadUnits,
    Gate,
    Passage,
    declared_values,
    encoded_key,
    passage_of,
)
from bridge.options import Declaration, declare

MINUTE = timedelta(minutes=1)
USER = "3f2c1c9e-7a54-4a0b-9d7e-0c7d9b0b1a11"


def embed(user_id: str, batch: list[str], source: Any = None) -> None: ...


def declared(task: str = "embed", **options: Any) -> Declaration:
    return declare(task, embed, False, options)


def passage(declaration: Declaration, *args: Any, **kwargs: Any) -> Passage:
    return passage_of(declaration, declaration.arguments(args, kwargs))


def test_a_task_without_limits_has_a_lane_that_an_operator_can_pause() -> None:
    assert passage(declared("my tasks.embed|x")) == Passage("task|my%20tasks.embed%7Cx|", (), ())


def test_a_lane_names_keyed_slots_first_then_slots_then_rates() -> None:
    declaration = declared(
        concurrency=[Limit(5), Limit(20, name="openai"), Limit(1, key="user_id")],
        rate=[
            Rate(100, MINUTE, name="openai", units=lambda batch: len(batch)),
            Rate(9, MINUTE, key="source"),
        ],
    )
    gates = (
        "slots|embed:user_id|ann",
        "slots|embed|",
        "slots|openai|",
        "rate|openai|",
        "rate|embed:source|rss",
    )
    assert passage(declaration, "ann", ["a", "b"], source="rss") == Passage(
        lane=" ".join(("task|embed|", *gates)), units=(1, 1, 1, 2, 1), gates=gates
    )


def test_runs_with_the_same_key_share_a_lane_and_others_do_not() -> None:
    declaration = declared(concurrency=[Limit(5), Limit(1, key=lambda user_id, source: (user_id, source))])
    lanes = [passage(declaration, user, [], source=source).lane for user in "ab" for source in (1, "1", None)]
    assert len(set(lanes)) == 6
    assert passage(declaration, "a", [1], source=1).lane == lanes[0]


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"rate": Rate(3, per=timedelta(minutes=1))}])
def test_what_runs_pass_that_nothing_splits_or_measures_is_known_without_their_arguments(
    options: dict[str, Any],
) -> None:
    declaration = declared(**options)
    assert declaration.turnstile.always == passage(declaration, "ann", ["post"])


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": [Limit(5), Limit(1, key="user_id")]},
        {"rate": Rate(3, per=timedelta(minutes=1), key="user_id")},
        {"rate": Rate(3, per=timedelta(minutes=1), units=lambda batch: len(batch))},
    ],
)
def test_what_runs_pass_that_something_splits_or_measures_is_known_by_their_arguments_alone(
    options: dict[str, Any],
) -> None:
    assert declared(**options).turnstile.always is None


def test_values_are_declared_under_the_names_of_the_gates() -> None:
    declaration = declared(
        "my.task",
        concurrency=[Limit(5), Limit(1, key="user_id")],
        rate=[Rate(100, timedelta(seconds=1.5), name="openai"), Rate(7, timedelta(microseconds=1001))],
    )
    values = declared_values(declaration)
    assert values == {
        "slots|my.task": "5", "slots|my.task:user_id": "1", "rate|openai": "100:1500", "rate|my.task": "7:2",
    }  # fmt: skip
    assert {gate.rpartition("|")[0] for gate in passage(declaration, "ann", []).gates} == set(values)


class Plan(str, Enum):  # noqa: UP042  (its `str()` is no value, unlike a StrEnum's)
    FREE = "free"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (USER, USER),
        (UUID(USER), USER),
        ("Ann@x.org+a", "Ann@x.org+a"),
        (7, "7"),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        ("", "%22%22"),
        ("a b|c,d/~", "a%20b%7Cc%2Cd%2F%7E"),
        ("é\n\0", "%C3%A9%0A%00"),
        ("\ud800", "%ED%A0%80"),
        (Plan.FREE, "free"),
        (("a", 1), "%5B%22a%22%2C1%5D"),
        (["a", 1], "%5B%22a%22%2C1%5D"),
        ({"b": UUID(USER), "a": 1}, f"%7B%22a%22:1%2C%22b%22:%22{USER}%22%7D"),
        (timedelta(minutes=1), "0:01:00"),
    ],
)
def test_a_key_is_the_same_text_in_every_process(value: Any, key: str) -> None:
    assert encoded_key(value) == key


@given(st.text(), st.text())
@example("é" * 200, "é" * 199 + "e")
@example("x" * 500, "x" * 501)
@example("~", "%7E")
@example("", '"')
def test_two_keys_never_become_one_and_none_breaks_a_lane(one: str, other: str) -> None:
    keys = encoded_key(one), encoded_key(other)
    assert (keys[0] == keys[1]) == (one == other)
    for key, value in zip(keys, (one, other), strict=True):
        assert 0 < len(key) <= LONGEST_KEY
        assert not set(key) & set(" |,\n\t")
        if "~" not in key and value:
            assert Gate.read(f"slots|embed|{key}") == ("slots", "embed", value)


def test_a_key_cannot_pass_for_the_short_form_of_another() -> None:
    long = encoded_key("secret" * 100)
    assert "~" in long
    assert encoded_key(long) != long


def test_gates_and_lanes_are_decoded_for_display() -> None:
    run = passage(declared("my task", concurrency=Limit(1, key="user_id")), "a b", [])
    assert [Gate.read(part) for part in run.lane.split(" ")] == [
        Gate("task", "my task", ""),
        Gate("slots", "my task:user_id", "a b"),
    ]


@pytest.mark.parametrize(
    "value", [{"a", "b"}, frozenset("ab"), object(), [object()], iter("ab"), {1: 2, "1": 3}]
)
def test_a_value_that_differs_between_processes_is_no_key(value: Any) -> None:
    with pytest.raises(BadKey, match="is split by source; for this run of embed that is a ") as raised:
        passage(declared(concurrency=Limit(1, key="source")), "ann", [], source=value)
    assert str(raised.value).endswith("give a str, a number, a UUID or a tuple of them.")


@pytest.mark.parametrize("key", ["user_id", lambda user_id: user_id, lambda user_id, **rest: user_id])
def test_a_run_without_the_argument_of_a_key_ends_with_a_clear_code(key: Any) -> None:
    declaration = declared(concurrency=Limit(1, key=key, name="users"))
    with pytest.raises(BadKey) as raised:
        passage(declaration, usr="ann")
    code, message = describe(raised.value, expose=False)
    assert code == "limit_key"
    assert message.startswith("The limit users is split by ")
    assert message.endswith("for this run of embed there is no argument user_id: pass it.")


def leaking(**arguments: Any) -> Any:
    raise RuntimeError("password=hunter2")


class Leaking:
    def __str__(self) -> str:
        raise RuntimeError("password=hunter2")

    __index__ = __len__ = __str__


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"concurrency": Limit(1, key=leaking)}, BadKey, "leaking failed with RuntimeError"),
        ({"concurrency": Limit(1, key=lambda **_: Leaking())}, BadKey, "that is a Leaking"),
        ({"rate": Rate(1, MINUTE, key=leaking)}, BadKey, "leaking failed with RuntimeError"),
        ({"rate": Rate(1, MINUTE, units=leaking)}, BadUnits, "leaking failed with RuntimeError"),
        ({"rate": Rate(1, MINUTE, units=lambda **_: Leaking())}, BadUnits, "<lambda> gave a Leaking"),
    ],
)
def test_a_function_that_raises_ends_the_run_without_its_words(options: Any, kind: type, told: str) -> None:
    with pytest.raises(kind) as raised:
        passage(declared(**options), "ann", [])
    assert told in str(raised.value)
    assert "hunter2" not in str(describe(raised.value, expose=False))


def test_what_a_function_raised_is_in_the_log_of_the_worker() -> None:
    with pytest.raises(BadKey) as raised:
        passage(declared(concurrency=Limit(1, key=leaking)), "ann", [])
    assert "hunter2" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("units", "told"),
    [
        (lambda batch: -1, "<lambda> gave -1: give a whole number of at least 0."),
        (lambda batch: 1.0, "<lambda> gave a float: give a whole number"),
        (lambda batch: None, "<lambda> gave a NoneType: give"),
        (lambda batch: True, "<lambda> gave a bool: give"),
        (lambda batch: "3", "<lambda> gave a str: give"),
        (
            lambda batch: 11,
            "they are 11, above the 10 per 0:01:00 that may start at all: split its work, or raise the rate.",
        ),
    ],
)
def test_units_that_can_never_be_had_end_the_run_with_a_clear_code(units: Any, told: str) -> None:
    declaration = declared(rate=Rate(10, MINUTE, name="openai", units=units))
    with pytest.raises(BadUnits) as raised:
        passage(declaration, "ann", [])
    code, message = describe(raised.value, expose=False)
    assert code == "limit_units"
    assert message.startswith("The units of the rate openai are counted")
    assert told in message


class Whole:
    def __index__(self) -> int:
        return 4


@pytest.mark.parametrize(("units", "taken"), [(0, 0), (10, 10), (Whole(), 4)])
def test_units_go_from_none_to_all_that_there_are(units: Any, taken: int) -> None:
    declaration = declared(rate=Rate(10, MINUTE, units=lambda batch: units))
    assert passage(declaration, "ann", []).units == (taken,)


def test_functions_get_the_arguments_that_they_name_with_their_defaults() -> None:
    seen: list[Any] = []

    def key(user_id: str, source: str, team: str = "none") -> str:
        seen.append((user_id, source, team))
        return "k"

    def everything(**arguments: Any) -> str:
        seen.append(arguments)
        return "k"

    passage(declared(concurrency=[Limit(1, key=key), Limit(1, key=everything)]), "ann", batch=[])
    assert seen == [("ann", None, "none"), {"user_id": "ann", "batch": [], "source": None}]


@pytest.mark.parametrize("kind", [BadKey, BadUnits])
def test_the_errors_keep_their_code_on_the_way_between_processes(kind: type[PublicError]) -> None:
    error = kind("no")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code) == (kind, "no", error.code)
