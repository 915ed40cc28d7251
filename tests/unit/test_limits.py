"""A limit that cannot work is refused where it is declared, with what to do instead."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, shared_task

from bridge import ArgumentError, Bridge, DeclarationError, Limit, Rate
from bridge.limits.gates import passage_of
from bridge.testing import MemoryOutbox

MINUTE = timedelta(minutes=1)


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("limited", broker="memory://", set_as_current=False)
    made = Bridge(app, outbox=MemoryOutbox())
    yield app
    made.close()
    app.close()  # or it would take the shared tasks of other tests


def embed(self: Any, user_id: str, batch: list[str], source: str = "rss") -> None: ...


async def asked_later(user_id: str) -> str:
    return user_id


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit(0), "concurrency=0: give a whole number of at least 1"),
        (lambda: Limit(-1), "concurrency=-1: give a whole number"),
        (lambda: Limit(True), "concurrency=True: give a whole number"),
        (lambda: Limit(2.0), "concurrency=2.0: give a whole number"),  # type: ignore[arg-type]
        (lambda: Limit(1_000_001), "at most 1,000,000 can be counted; leave it out for no limit"),
        (lambda: Limit(1, key=5), "key=5: name an argument of the task, or give a function"),  # type: ignore[arg-type]
        (lambda: Limit(1, key=""), "key='': name an argument"),
        (lambda: Limit(1, key=lambda *args: 1), "arguments come by name, so *args would stay empty"),
        (lambda: Limit(1, key=lambda user_id, /: 1), "so user_id would stay empty"),
        (lambda: Limit(1, key=str), "its parameters cannot be read; wrap it in a lambda"),
        (lambda: Limit(1, key=asked_later), "it is async; give a plain function"),
        (lambda: Limit(1, name=""), "name='': letters, digits and _ . : - only, 1 to 100 of them"),
        (lambda: Limit(1, name="open ai"), "name='open ai': letters"),
        (lambda: Limit(1, name="openai\n"), "letters"),
        (lambda: Limit(1, name="é"), "letters"),
        (lambda: Limit(1, name="x" * 101), "letters"),
        (lambda: Limit(1, name=5), "name=5: letters"),  # type: ignore[arg-type]
        (lambda: Rate(0, MINUTE), "count=0: give a whole number of at least 1"),
        (lambda: Rate(True, MINUTE), "count=True: give a whole number"),
        (lambda: Rate(10**9 + 1, MINUTE), "at most 1,000,000,000 can be counted"),
        (lambda: Rate(5, timedelta(0)), "give a positive timedelta, from a millisecond to a year"),
        (lambda: Rate(5, timedelta(microseconds=999)), "give a positive timedelta"),
        (lambda: Rate(5, timedelta(days=367)), "give a positive timedelta"),
        (lambda: Rate(5, 60), "per=60: give a positive timedelta"),  # type: ignore[arg-type]
        (lambda: Rate(5, MINUTE, key=5), "key=5: name an argument"),  # type: ignore[arg-type]
        (lambda: Rate(5, MINUTE, name="a b"), "name='a b': letters"),
        (lambda: Rate(5, MINUTE, units=3), "units=3: give a function, as in units=lambda batch"),  # type: ignore[arg-type]
        (lambda: Rate(5, MINUTE, units=lambda *batch: 1), "so *batch would stay empty"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        make()


def by_account(acount: str) -> str:
    return acount


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": False}, "concurrency=False: give a whole number of at least 1; see Limit and Rate"),
        ({"concurrency": [5]}, "a list may hold Limit(...) values only"),
        ({"rate": []}, "rate=[]: give a Rate"),
        ({"rate": [Limit(5)]}, "give a Rate(count, per=timedelta(...)) or a list of them"),
        ({"concurrency": Limit(1, key="usr_id")}, "`usr_id`; did you mean `user_id`?"),
        ({"rate": Rate(5, MINUTE, key="sorce")}, "`sorce`; did you mean `source`?"),
        (
            {"concurrency": Limit(1, key=by_account)},
            "key=by_account names the missing argument `acount`; it takes user_id, batch, source",
        ),
        (
            {"rate": Rate(5, MINUTE, units=lambda bach: 1)},
            "units=<lambda> names the missing argument `bach`; did you mean `batch`?",
        ),
        ({"concurrency": [Limit(5), Limit(3)]}, "two of its limits go by the name `embed`; keep one of them"),
        (
            {"concurrency": [Limit(5, key="user_id"), Limit(3, key="user_id")]},
            "two of its limits go by the name `embed:user_id`",
        ),
        (
            {"concurrency": [Limit(1, key=lambda user_id: 1), Limit(1, key=lambda source: 1)]},
            "go by the name `embed:<lambda>`; keep one of them, or give each a name=... of its own",
        ),
        (
            {"concurrency": [Limit(5, name="db"), Limit(3, name="db", key="user_id")]},
            "two of its limits go by the name `db`",
        ),
        ({"rate": [Rate(5, MINUTE), Rate(9, MINUTE)]}, "two of its rates go by the name `embed`"),
        ({"on_limit": "drop"}, "on_limit='drop' without a limit; add concurrency=..."),
        (
            {"on_limit": "cancel_running", "rate": Rate(5, MINUTE)},
            "on_limit='cancel_running' with a rate alone",
        ),
    ],
)
def test_a_task_that_cannot_be_limited_so_fails_at_import(
    app: Celery, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=re.escape(message)) as raised:
        app.task(bind=True, name="embed", **options)(embed)
    assert str(raised.value).startswith("task embed: ")


@pytest.mark.parametrize(
    "key",
    [
        "user_id",
        lambda user_id, source: (user_id, source),
        lambda user_id, *, source: (user_id, source),
        lambda user_id, team="none": (user_id, team),
        lambda **arguments: arguments["user_id"],
        lambda *args, **kwargs: kwargs["user_id"],
        functools.partial(lambda prefix, user_id: prefix + user_id, "u-"),
    ],
)
def test_a_key_may_be_any_function_of_arguments_that_the_task_has(app: Celery, key: Any) -> None:
    declared = app.task(bind=True, concurrency=Limit(1, key=key))(embed).declaration
    assert passage_of(declared, declared.arguments(("ann", []), {}))


def test_a_task_that_takes_any_argument_may_be_split_by_any(app: Celery) -> None:
    @app.task(concurrency=Limit(1, key="team", name="teams"))
    def anything(**arguments: Any) -> None: ...

    declared = anything.declaration
    assert passage_of(declared, declared.arguments((), {"team": "red"})).gates == ("slots|teams|red",)


def test_limits_and_rates_have_names_of_their_own(app: Celery) -> None:
    limits = {"concurrency": [Limit(5), Limit(20, name="openai")]}
    rates = {"rate": [Rate(5, MINUTE), Rate(100, MINUTE, name="openai")]}
    assert app.task(bind=True, **limits, **rates)(embed).declaration.bounds


def declare(app: Celery, task: str, **options: Any) -> Any:
    return app.task(bind=True, name=task, **options)(embed)


def test_two_tasks_share_a_limit_that_both_declare_alike(app: Celery) -> None:
    for task in ("one", "two", "three"):
        declare(app, task, concurrency=Limit(20, name="openai"), rate=Rate(9, MINUTE, name="openai"))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"concurrency": Limit(20, name="openai")},
            {"concurrency": [Limit(5), Limit(10, name="openai")]},
            "task two: `openai` is Limit(10) here and Limit(20) in task one; "
            "give both the same value, or one of them another name",
        ),
        (
            {"rate": Rate(20, MINUTE, name="openai")},
            {"rate": Rate(20, timedelta(hours=1), name="openai")},
            "task two: `openai` is Rate(20, per=1:00:00) here and Rate(20, per=0:01:00) in task one",
        ),
        (
            {"concurrency": Limit(1, name="users", key="user_id")},
            {"concurrency": Limit(1, name="users")},
            "task two: `users` is Limit(1) here and Limit(1, key=user_id) in task one; "
            "give both a key or none",
        ),
        (
            {"concurrency": 5},
            {"concurrency": Limit(4, name="one")},
            "task two: `one` is Limit(4) here and Limit(5) in task one",
        ),
    ],
)
def test_two_tasks_cannot_mean_different_values_by_one_name(
    app: Celery, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    declare(app, "one", **first)
    with pytest.raises(DeclarationError, match=re.escape(message)):
        declare(app, "two", **second)


def test_a_refused_declaration_leaves_the_others_as_they_were(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))
    with pytest.raises(DeclarationError):
        declare(app, "two", concurrency=[Limit(7, name="gpu"), Limit(10, name="openai")])
    declare(app, "three", concurrency=[Limit(8, name="gpu"), Limit(20, name="openai")])


def test_a_task_declared_again_brings_new_values(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))
    declare(app, "one", concurrency=Limit(10, name="openai"))
    declare(app, "two", concurrency=Limit(10, name="openai"))
    declare(app, "two")
    declare(app, "one", concurrency=Limit(30, name="openai"))


def test_each_app_has_names_of_its_own(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))
    other = Celery("other", broker="memory://", set_as_current=False)
    made = Bridge(other, outbox=MemoryOutbox())
    declare(other, "two", concurrency=Limit(10, name="openai"))
    made.close()
    other.close()


def test_a_class_of_tasks_is_held_to_the_names_too(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))

    class Ask(app.Task):  # type: ignore[name-defined,misc]
        name = "ask"
        concurrency = Limit(10, name="openai")

        def run(self) -> None: ...

    with pytest.raises(DeclarationError, match=r"task ask: `openai` is Limit\(10\) here"):
        app.register_task(Ask())


def share(**options: Any) -> None:
    shared_task(name="shared", bind=True, **options)(embed)


def test_a_shared_task_is_held_to_the_names_too(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))
    share(concurrency=Limit(9, name="openai"))
    with pytest.raises(DeclarationError, match=r"task shared: `openai` is Limit\(9\) here"):
        app.finalize()


def test_a_task_shared_with_an_app_that_is_ready_is_held_to_the_names_at_once(app: Celery) -> None:
    declare(app, "one", concurrency=Limit(20, name="openai"))
    app.finalize()
    with pytest.raises(DeclarationError, match=r"task shared: `openai` is Limit\(9\) here"):
        share(concurrency=Limit(9, name="openai"))


def test_the_limit_of_a_class_goes_by_the_name_that_it_is_registered_under(app: Celery) -> None:
    class Ask(app.Task):  # type: ignore[name-defined,misc]
        concurrency = 3

        def run(self) -> None: ...

    task = app.register_task(Ask())
    assert passage_of(task.declaration, {}).lane == f"task|{task.name}| slots|{task.name}|"


def test_a_base_class_may_say_what_becomes_of_runs_above_the_limits_of_its_tasks(app: Celery) -> None:
    class Dropping(app.Task):  # type: ignore[name-defined,misc]
        abstract = True
        on_limit = "drop"

    assert app.task(bind=True, base=Dropping, concurrency=1)(embed).declaration.on_limit == "drop"
    with pytest.raises(DeclarationError, match="without a limit"):
        app.task(bind=True, base=Dropping)(embed)
