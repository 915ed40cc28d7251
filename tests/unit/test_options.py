"""A mistake in a declaration fails when the module is imported, with a suggestion."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery import Task as CeleryTask

from bridge import ArgumentError, Bridge, DeclarationError, Limit, Rate, SettingsError
from bridge.checkpoint import Checkpoint, Kept
from bridge.current import detached_run
from bridge.options import Declaration

USER = str(uuid4())


class Nothing:
    """An outbox that keeps nothing."""

    def append(self, entries: Any) -> None: ...

    def fullness(self) -> float:
        return 0.0

    def take_checkpoint(self, checkpoint: Checkpoint) -> Kept:
        return Kept()

    def save_checkpoint(self, checkpoint: Checkpoint) -> bool:
        return True


@pytest.fixture
def app() -> Any:
    app = Celery("declared", broker="memory://", set_as_current=False)
    made = Bridge(app, outbox=Nothing())
    yield app
    made.close()


def import_socials(self: Any, user_id: str, pages: int = 3) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurency": 5}, "unknown option `concurency`; did you mean `concurrency`?"),
        ({"chanel": "x"}, "unknown option `chanel`; did you mean `channel`?"),
        ({"zzz": 1}, "unknown option `zzz`; the bridge's options are concurrency, "),
        ({"concurrency": 0}, "concurrency=0: give a whole number of at least 1"),
        ({"concurrency": -3}, "concurrency=-3: give"),
        ({"concurrency": "5"}, "concurrency='5': give"),
        ({"concurrency": True}, "concurrency=True: give"),
        ({"concurrency": []}, "a list may hold Limit(...) values only"),
        (
            {"concurrency": Limit(1, key="user")},
            "key names the missing argument `user`; did you mean `user_id`?",
        ),
        ({"rate": 5}, "rate=5: give a Rate(count, per=timedelta(...)) or a list of them"),
        ({"on_limit": "drop"}, "on_limit='drop' without a limit; add concurrency=..."),
        (
            {"concurrency": 1, "on_limit": "wiat"},
            "on_limit='wiat'; it is one of 'wait', 'drop', 'cancel_running'",
        ),
        ({"channel": "import-{user}"}, "names the missing argument `user`; did you mean `user_id`?"),
        ({"channel": "import-{}"}, "name plain arguments only"),
        ({"channel": "import-{user_id.x}"}, "name plain arguments only"),
        ({"channel": "import-{user_id"}, "is no template"),
        ({"owner": "account"}, "owner names the missing argument `account`; it takes user_id, pages"),
    ],
)
def test_a_wrong_declaration_fails_at_once(app: Celery, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(message)) as raised:
        app.task(bind=True, **options)(import_socials)
    assert "import_socials" in str(raised.value)


def test_a_rate_needs_a_time_and_a_count() -> None:
    with pytest.raises(ValueError, match="positive timedelta"):
        Rate(5, per=timedelta(0))
    with pytest.raises(ValueError, match="at least 1"):
        Rate(0, per=timedelta(seconds=1))


def test_options_of_celery_and_of_a_base_class_are_known(app: Celery) -> None:
    class Base(app.Task):  # type: ignore[name-defined,misc]
        retries_quietly = False

    task = app.task(
        bind=True, base=Base, retries_quietly=True, autoretry_for=(OSError,), max_retries=5,
        concurrency=[Limit(5), Limit(1, key="user_id")], rate=Rate(100, per=timedelta(minutes=1)),
        channel="import-socials-{user_id}", acks_late=True, rate_limit="10/s",
    )(import_socials)  # fmt: skip
    assert task.declaration.limits == (Limit(5), Limit(1, key="user_id"))
    assert task.retries_quietly


def test_a_class_of_tasks_declares_like_the_decorator(app: Celery) -> None:
    class Import(app.Task):  # type: ignore[name-defined,misc]
        name = "import"
        concurrency = 2
        channel = "import-socials-{user_id}"

        def run(self, user_id: str) -> None: ...

    assert Import.declaration.limits == (Limit(2),)
    with pytest.raises(DeclarationError, match="missing argument `user_id`"):

        class Wrong(app.Task):  # type: ignore[name-defined,misc]
            name = "wrong"
            channel = "import-socials-{user_id}"

            def run(self, account: str) -> None: ...


def test_a_plain_function_is_declared_without_bind(app: Celery) -> None:
    @app.task(channel="room-{room}-{user_id}")
    def talk(room: str, user_id: str) -> None: ...

    arguments = talk.declaration.arguments(("a",), {"user_id": USER})
    assert talk.declaration.channel_of(arguments) == f"room-a-{USER}"
    assert talk.declaration.owner_of(arguments) == USER


def fetch(user_id: str, pages: int = 3) -> None: ...


def fetch_any(user_id: str, **rest: Any) -> None: ...


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "expected"),
    [
        (fetch, ("a",), {}, {"user_id": "a", "pages": 3}),
        (fetch, ("a", 1, "too many"), {"x": 1}, {"x": 1}),
        (fetch_any, ("a",), {"rest": 1, "x": 2}, {"user_id": "a", "rest": 1, "x": 2}),
        (fetch_any, (), {}, {}),
    ],
)
def test_the_arguments_of_a_run_are_known_by_the_names_they_were_given_under(
    app: Celery, fun: Any, args: Any, kwargs: Any, expected: Any
) -> None:
    assert app.task(name="named")(fun).declaration.arguments(args, kwargs) == expected


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (("nobody",), "user_id='nobody'"),
        (("",), "user_id=''"),
        ((None,), "user_id=None"),
        ((f"{USER}\n/../x",), "user_id="),
    ],
)
def test_a_run_for_no_user_is_refused_before_it_is_published(app: Celery, args: Any, field: str) -> None:
    task = app.task(bind=True, channel="import-socials-{user_id}")(import_socials)
    with pytest.raises(ArgumentError, match=re.escape(field)):
        task.delay(*args)


def test_a_channel_can_only_be_made_of_safe_letters(app: Celery) -> None:
    @app.task(channel="room-{room}-{user_id}")
    def talk(room: str, user_id: str) -> None: ...

    with pytest.raises(ArgumentError, match="letters, digits"):
        talk.delay("a b/../", user_id=USER)


def test_the_bridge_comes_before_the_first_task() -> None:
    app = Celery("late", broker="memory://", set_as_current=False)

    @app.task
    def early() -> None: ...

    early.name  # noqa: B018  (makes the task)
    with pytest.raises(SettingsError, match="right after app = Celery"):
        Bridge(app, outbox=Nothing())


def test_an_app_keeps_its_own_task_class() -> None:
    class Own(CeleryTask):
        greeting = "hello"

    app = Celery("own", broker="memory://", set_as_current=False, task_cls=Own)
    made = Bridge(app, outbox=Nothing())
    task = app.task(bind=True)(import_socials)
    assert task.greeting == "hello"
    assert task.declaration.owner == "user_id"
    made.close()


def test_a_body_can_be_called_as_a_function(app: Celery) -> None:
    @app.task(bind=True)
    def double(self: Any, number: int) -> int:
        self.progress(number, 10)
        return number * 2

    assert double(4) == 8
    assert detached_run().last_checkpoint is None


FUNCTIONS: list[Callable[..., Any]] = [
    lambda: None,
    lambda a, b: None,
    lambda a, b=2, c=3: None,
    lambda a, *, b=2: None,
    lambda a, /, b=2: None,
    lambda *args: None,
    lambda a, **rest: None,
]


@pytest.mark.parametrize("place", range(len(FUNCTIONS)))
def test_the_quick_way_to_name_arguments_finds_what_python_would(place: int) -> None:
    signature = inspect.signature(FUNCTIONS[place])
    named = [{}, {"a": 7}, {"b": 8}, {"c": 9, "b": 8}, {"unknown": 1}, {"a": 7, "unknown": 1}]
    for args, kwargs in itertools.product([(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], named):
        assert Declaration("t", signature).arguments(args, kwargs) == bound(signature, args, kwargs)


def bound(signature: inspect.Signature, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        found = signature.bind_partial(*args, **kwargs)
    except TypeError:
        return kwargs
    found.apply_defaults()
    rest = found.arguments.pop("rest", {})
    return {**found.arguments, **rest}
