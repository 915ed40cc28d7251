"""Settings by environment: what is accepted, how a mistake is told, and that every list of them agrees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from bridge.settings import LimitSettings
from config.settings import Settings, settings

CHECKOUT = Path(__file__).parents[2]
LEGACY_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"
SECRET_KEY = "sb_secret" + "_of_a_test"
URL = "https://project.supabase.co"


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting in the environment and no `.env`, before and after."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def environ(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return environ


def refusal() -> list[str]:
    """The lines that a process with these settings ends with."""
    with pytest.raises(SystemExit) as ended:
        settings()
    return str(ended.value).splitlines()


WRONG = {
    "REDIS_URL": ("localhost:6379", "must start with redis://, rediss:// or unix://"),
    "SUPABASE_URL": (
        "project.supabase.co",
        "must start with http:// or https://, such as https://<project>.supabase.co",
    ),
    "OUTBOX_PARTITIONS": ("0", "Input should be greater than or equal to 1"),
    "LIMITS_REDIS_URL": ("localhost:6379", "must start with redis://, rediss:// or unix://"),
    "LIMITS_LEASE_SECONDS": ("0.5", "Input should be a valid integer, unable to parse string as an integer"),
    "BROADCAST_PRIVATE": ("perhaps", "Input should be a valid boolean, unable to interpret input"),
    "FLOWER_PORT": ("99999", "Input should be less than or equal to 65535"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line_with_its_name_its_value_and_the_remedy(
    name: str, environ: Callable[..., None]
) -> None:
    value, remedy = WRONG[name]
    environ(**{"SUPABASE_URL": URL, "SUPABASE_SECRET_KEY": SECRET_KEY, name: value})
    assert refusal() == [
        "taskcast: wrong settings (environment or .env)",
        f"  {name}={value!r}: {remedy}",
    ]


def test_each_wrong_setting_has_its_line(environ: Callable[..., None]) -> None:
    environ(OUTBOX_PARTITIONS="0", FLOWER_PORT="99999")
    assert [line.split("=")[0].strip() for line in refusal()[1:]] == ["OUTBOX_PARTITIONS", "FLOWER_PORT"]


def test_a_process_with_wrong_settings_ends_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", "status"],
        env={"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], "REDIS_URL": "localhost"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "taskcast: wrong settings (environment or .env)",
        "  REDIS_URL='localhost': must start with redis://, rediss:// or unix://",
    ]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"{URL}/rest/v1", "must be the project's address alone, such as https://<project>.supabase.co"),
        ("https://", "must be the project's address alone, such as https://<project>.supabase.co"),
    ],
)
def test_a_url_that_is_no_project_is_refused(url: str, remedy: str, environ: Callable[..., None]) -> None:
    environ(SUPABASE_URL=url, SUPABASE_SECRET_KEY=SECRET_KEY)
    assert refusal()[1:] == [f"  SUPABASE_URL={url!r}: {remedy}"]


@pytest.mark.parametrize(
    ("given", "value", "missing"),
    [("SUPABASE_URL", URL, "SUPABASE_SECRET_KEY"), ("SUPABASE_SECRET_KEY", SECRET_KEY, "SUPABASE_URL")],
)
def test_half_a_supabase_is_refused_and_the_missing_half_named(
    given: str, value: str, missing: str, environ: Callable[..., None]
) -> None:
    environ(**{given: value})
    assert [line.split(":")[0].strip() for line in refusal()[1:]] == [missing]


@pytest.mark.parametrize("name", ["REDIS_URL", "LIMITS_REDIS_URL"])
def test_a_password_in_a_wrong_address_is_not_shown(name: str, environ: Callable[..., None]) -> None:
    environ(**{name: "redis://:hunter2@localhost:port/0"})
    assert refusal()[1:] == [
        f"  {name}='redis://***@localhost:port/0': the port must be a number, such as redis://127.0.0.1:6379/0"
    ]


def test_the_publishable_key_is_refused_and_not_shown(environ: Callable[..., None]) -> None:
    environ(SUPABASE_URL=URL, SUPABASE_SECRET_KEY="sb_publishable_never_shown")
    assert refusal()[1:] == [
        "  SUPABASE_SECRET_KEY: is the publishable key; the bridge needs the secret key (sb_secret_...)"
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", " x", "\u200b"], ids=ascii)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    end: str, environ: Callable[..., None]
) -> None:
    """A mounted secret often ends in a line break; the HTTP library would print it with the key."""
    environ(SUPABASE_URL=URL, SUPABASE_SECRET_KEY=SECRET_KEY + end)
    told = "has a blank, a line break or another character that no key has; copy it anew"
    assert refusal()[1:] == [f"  SUPABASE_SECRET_KEY: {told}"]


@pytest.mark.parametrize("name", ["SUPABASE_SECRET_KEY", "FLOWER_PASSWORD", "OPENAI_API_KEY"])
def test_a_secret_is_not_shown(name: str, environ: Callable[..., None]) -> None:
    environ(**{"SUPABASE_URL": URL, "SUPABASE_SECRET_KEY": SECRET_KEY, name: "never-shown"})
    assert "never-shown" not in repr(settings())


@pytest.mark.parametrize(
    ("name", "key"), [("SUPABASE_SECRET_KEY", SECRET_KEY), ("SUPABASE_SERVICE_ROLE_KEY", LEGACY_KEY)]
)
def test_both_kinds_of_key_are_accepted(name: str, key: str, environ: Callable[..., None]) -> None:
    environ(**{"SUPABASE_URL": f"{URL}/", name: key})
    supabase = settings().bridge().supabase
    assert supabase is not None
    assert (supabase.url, supabase.key.get_secret_value()) == (URL, key)


def test_the_secret_key_goes_before_the_legacy_one() -> None:
    both = Settings(
        supabase_url=URL,
        supabase_secret_key=SecretStr(SECRET_KEY),
        supabase_service_role_key=SecretStr(LEGACY_KEY),
    )
    supabase = both.bridge().supabase
    assert supabase is not None
    assert supabase.key.get_secret_value() == SECRET_KEY


def test_without_a_supabase_workers_start_all_the_same() -> None:
    assert settings().bridge().supabase is None


def test_the_limits_are_set_by_the_environment(environ: Callable[..., None]) -> None:
    url = "redis://limits:6379/1"
    environ(
        LIMITS_REDIS_URL=url,
        LIMITS_LEASE_SECONDS="30",
        LIMITS_GRANT_SECONDS="7",
        LIMITS_POSITIONS_PER_SECOND="9",
    )
    assert settings().bridge().limits == LimitSettings(
        redis_url=url, lease=timedelta(seconds=30), grant=timedelta(seconds=7), positions_per_second=9
    )


def test_without_variables_the_limits_are_as_the_library_has_them() -> None:
    assert settings().bridge().limits == LimitSettings()


def test_a_dot_env_is_read_and_the_environment_goes_before_it(environ: Callable[..., None]) -> None:
    Path(".env").write_text("OUTBOX_PARTITIONS=3\nBROADCAST_LISTENERS=2\n")
    environ(OUTBOX_PARTITIONS="5")
    assert (settings().outbox_partitions, settings().broadcast_listeners) == (5, 2)


def test_the_example_changes_nothing_as_it_stands() -> None:
    plain = Settings()
    Path(".env").write_text((CHECKOUT / ".env.example").read_text())
    assert settings() == plain


def test_the_example_names_every_setting_with_its_default_and_a_comment() -> None:
    lines = (CHECKOUT / ".env.example").read_text().splitlines()
    listed = {}
    for before, line in zip(["", *lines], lines, strict=False):
        if found := re.fullmatch(r"#?([A-Z][A-Z_]+)=(.*)", line):
            listed[found[1]] = found[2]
            assert re.match(r"#( |[A-Z_]+=)", before), f"{found[1]} has no comment above it"
    assert listed == {name.upper(): _written(field.default) for name, field in Settings.model_fields.items()}


def test_the_readme_names_every_setting() -> None:
    paragraphs = (CHECKOUT / "README.md").read_text().split("\n\n")
    table = next((text for text in paragraphs if "| `REDIS_URL`" in text), None)
    if table is None:
        pytest.skip("README.md has no settings table")
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    listed = {name for cell in cells for name in re.findall(r"`([A-Z][A-Z_]+)`", cell)}
    assert listed == {name.upper() for name in Settings.model_fields}


def _written(default: object) -> str:
    assert default is not PydanticUndefined
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
