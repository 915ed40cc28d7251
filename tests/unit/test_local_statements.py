"""Splitting SQL scripts into statements."""

from __future__ import annotations

import pytest

from bridge.local.statements import split_statements


@pytest.mark.parametrize(
    "statement",
    [
        "select 'a;b', \"c;d\"",
        "select 'it''s;', E'it\\'s;'",
        "select 1 -- one; more\n, 2",
        "select /* a; /* nested; */ b; */ 1",
        "do $$ begin perform 1; end $$",
        "create function f() returns int language plpgsql as $body$ begin return $$;$$; end $body$",
        "create function f() returns int language sql begin atomic select case when true then 1 end; end",
        "select $1, a$b$, 1",
    ],
)
def test_a_semicolon_inside_a_statement_does_not_end_it(statement: str) -> None:
    split = list(split_statements(f"{statement};\nselect 2;"))
    assert [text for _, text in split] == [statement, "select 2"]


def test_statements_know_the_line_of_their_first_word() -> None:
    script = "-- a comment\n\nselect 1;\n\n/* two\nlines */ select\n 2;\n"
    assert list(split_statements(script)) == [(3, "select 1"), (6, "select\n 2")]


def test_a_script_of_comments_has_no_statements() -> None:
    assert list(split_statements("-- nothing;\n/* at all; */ ;\n;")) == []


def test_an_ordinary_end_or_case_does_not_swallow_what_follows() -> None:
    script = "begin; select case when true then 1 else 2 end; end; select 3"
    assert len(list(split_statements(script))) == 4
