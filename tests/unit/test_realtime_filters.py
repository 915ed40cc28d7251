"""Filters and bindings of postgres_changes, without a database."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.local.realtime.bindings import BadBinding, parse_binding
from bridge.local.realtime.filters import BadFilter, Filter, holds, parse_filters


def test_several_conditions_are_split_outside_of_parentheses_and_quotes():
    assert parse_filters('a=eq.1,b=in.(x,"y,z","q\\"r"), c=not.like.%d_,e=eq."f,g"') == [
        Filter("a", "eq", ("1",)),
        Filter("b", "in", ("x", "y,z", 'q"r')),
        Filter("c", "like", ("%d_",), negate=True),
        Filter("e", "eq", ("f,g",)),
    ]


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_filter_is_none(text):
    assert parse_filters(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("undefined", '["undefined"]'),
        ("n=zz.1", '["zz", "1"]'),
        ("n=5", '["5"]'),
        ("n=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("a=eq.1,,b=eq.2", "filter must not contain empty segments (check for extra commas)"),
    ],
)
def test_a_filter_that_cannot_be_parsed_says_why(text, problem):
    with pytest.raises(BadFilter) as error:
        parse_filters(text)
    assert str(error.value) == problem


@given(st.text())
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(BadFilter):
        parse_filters(text)


@pytest.mark.parametrize(
    ("condition", "value", "type_name", "expected"),
    [
        ("n=eq.1.0", "1", "numeric", True),
        ("n=lt.10", "9", "int4", True),
        ("n=lt.10", "9", "text", False),
        ("n=gte.10", "10", "int8", True),
        ("n=in.(1,2)", "2", "int4", True),
        ("n=in.()", "2", "int4", False),
        ("n=not.in.(1,2)", "3", "int4", True),
        ("t=like.a_c%", "abcd", "text", True),
        ("t=like.a\\_c", "abc", "text", False),
        ("t=ilike.AB%", "abc", "text", True),
        ("t=match.^a.c$", "abc", "text", True),
        ("t=imatch.^A", "abc", "text", True),
        ("b=is.true", "t", "bool", True),
        ("b=not.is.true", "f", "bool", True),
        ("n=is.null", None, "int4", True),
        ("n=not.is.null", None, "int4", False),
        ("n=eq.1", None, "int4", False),
        ("n=not.eq.1", None, "int4", False),
        ("n=isdistinct.1", None, "int4", True),
        ("n=not.isdistinct.1", "1", "int4", True),
        ("x=gt.5", "NaN", "float8", True),
    ],
)
def test_conditions_hold_as_in_postgres(condition, value, type_name, expected):
    (parsed,) = parse_filters(condition)
    assert holds(parsed, value, type_name) is expected


def test_a_binding_has_defaults_and_an_id_of_its_parameters():
    binding = parse_binding({"table": "todos"})
    assert (binding.event, binding.schema, binding.table) == ("*", "public", "todos")
    assert parse_binding({"schema": "public"}).table == "*"
    assert parse_binding({"event": "insert", "table": "t"}).event == "INSERT"
    assert binding.id == parse_binding({"table": "todos"}).id
    assert binding.id != parse_binding({"table": "todos", "event": "INSERT"}).id


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "No subscription params provided"),
        ({"table": "t", "filter": "a=eq.1"}, "No subscription params provided"),
        ({"schema": 1, "table": "t"}, "No subscription params provided"),
        ({"schema": "s", "table": "t", "filter": "x"}, "Error parsing `filter` params"),
        ({"table": "t", "select": "a,b"}, "Error parsing `select` params"),
        ({"schema": "s", "select": ["a"]}, "Column selection is not supported for wildcard"),
    ],
)
def test_a_binding_that_cannot_work_says_why(params, problem):
    with pytest.raises(BadBinding) as error:
        parse_binding(params)
    assert str(error.value).startswith(problem)
