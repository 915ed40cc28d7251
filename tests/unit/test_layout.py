"""The layout: imports run one way, the public names are honest, the wheel holds the library alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import bridge

CHECKOUT = Path(__file__).parents[2]
OURS = {"bridge", "config", "tasks", "tests"}

# For each part, what it may import of ours, by prefix; the longest matching part decides.
ALLOWED = {
    "bridge": {"bridge"},
    "bridge.local": {"bridge.local", "bridge.settings", "bridge.errors"},
    "bridge.local.realtime": {"bridge.local"},
    "bridge.web": {"bridge.web", "bridge.local", "bridge.settings", "bridge.errors"},
    "config": {"config", "bridge.settings", "bridge.errors"},
    "tasks": {"tasks", "bridge", "config"},
}
NOT_TO_IMPORT_BACK = {
    "bridge.local",  # the stand-in shares no code with what is tested against it
    "bridge.testing",
}
MAY_START_THE_STACK = {"bridge.cli", "bridge.web"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Every module of a package, by dotted name."""
    for path in sorted((CHECKOUT / package).rglob("*.py")):
        if "node_modules" not in path.parts:
            dotted = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
            yield dotted.removesuffix(".__init__"), path


def imports(module: str, path: Path) -> Iterator[str]:
    """Our own modules that a module imports, at its top or inside a function, in dotted form."""
    for node in ast.walk(ast.parse(path.read_text())):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module if path.stem == "__init__" else module.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found = [f"{source}.{alias.name}" for alias in node.names]
        yield from (name for name in found if name.split(".")[0] in OURS)


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def allowed_for(module: str) -> set[str]:
    return ALLOWED[max((part for part in ALLOWED if within(module, {part})), key=len)]


@pytest.mark.parametrize("package", ["bridge", "config", "tasks"])
def test_imports_run_one_way(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules(package)
        for name in imports(module, path)
        if not within(name, allowed_for(module))
    ]
    assert not wrong


def test_the_library_stands_without_its_stand_ins() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules("bridge")
        for name in imports(module, path)
        if within(name, NOT_TO_IMPORT_BACK) and not within(module, MAY_START_THE_STACK | NOT_TO_IMPORT_BACK)
    ]
    assert not wrong


def test_only_one_file_of_the_workflow_knows_celery() -> None:
    knowing = {
        module
        for module, path in modules("tasks/import_socials")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if name and within(name, {"celery", "tasks.celery"})
    }
    assert knowing <= {"tasks.import_socials.workflow"}


@pytest.mark.parametrize(
    ("pins", "left_out"),
    [("app.txt", {"bridge.local", "bridge.web", "bridge.testing", "tasks.demo"}), ("dev.txt", set())],
)
def test_what_is_imported_is_pinned(pins: str, left_out: set[str]) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "requirements" / pins).read_text(), re.MULTILINE))
    distributions = packages_distributions()
    wrong = {
        f"{module} imports {name}"
        for part in ("bridge", "config", "tasks")
        for module, path in modules(part)
        if not within(module, left_out)
        for name in third_party(path)
        if not pinned & {re.sub("[-_.]+", "-", each).lower() for each in distributions.get(name, [name])}
    }
    assert not wrong, "enter the packages in pyproject.toml and run `make pins`"


def third_party(path: Path) -> set[str]:
    """The top-level packages that a module imports, ours and the standard library's left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - OURS - sys.stdlib_module_names


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [module for part in OURS for module, path in modules(part) if path.stem in drawers]


def test_every_folder_of_python_is_a_package() -> None:
    missing = {
        str(path.parent.relative_to(CHECKOUT))
        for part in OURS
        for _, path in modules(part)
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing


def test_all_names_exactly_what_the_library_gives() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse((CHECKOUT / "bridge/__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bridge.")
        for alias in node.names
    }
    assert sorted(bridge.__all__) == bridge.__all__ == sorted(imported)
    assert all(getattr(bridge, name).__doc__ for name in bridge.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Bridg'"):
        bridge.Bridg  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What lies in the wheel of this checkout, built apart from it, with the page as if it were built."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, source / name)
    page = source / "bridge/web/dist/index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("<!doctype html>")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(source / "out")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_library_alone(wheel: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"bridge", "taskcast"}
    assert not [name for name in wheel if "node_modules" in name or "__pycache__" in name]


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("bridge", ".py"), ("bridge/lua", ".lua"), ("bridge/local/sql", ".sql"), ("bridge/supabase", ".sql")],
)
def test_the_wheel_holds_every_file_that_the_library_reads(folder: str, suffix: str, wheel: set[str]) -> None:
    there = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / folder).rglob(f"*{suffix}")
        if "node_modules" not in path.parts
    }
    assert there
    assert not there - wheel


@pytest.mark.parametrize(
    "name",
    [
        "bridge/py.typed",
        "bridge/supabase/config.toml",
        "bridge/local/package.json",
        "bridge/local/package-lock.json",
        "bridge/web/dist/index.html",
    ],
)
def test_the_wheel_holds(name: str, wheel: set[str]) -> None:
    assert name in wheel, "what .gitignore names needs `artifacts` in [tool.hatch.build.targets.wheel]"


def test_the_wheel_names_the_commands(wheel: set[str]) -> None:
    (name,) = (name for name in wheel if name.endswith("entry_points.txt"))
    assert name.startswith("taskcast-")
