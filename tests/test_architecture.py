"""The house stands: arrows point down, no cycles, small rooms, nothing heavy at the door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rebyte_cli"

# Each room and the rooms that it may import from, lazily or not. `""` is the package itself,
# for its version.
ARROWS = {
    "__main__": {"", "cli", "completion"},
    "cli": {"", "app", "commands", "errors"},
    "commands": {
        "api",
        "app",
        "batch",
        "completion",
        "config",
        "deadline",
        "errors",
        "history",
        "local",
        "manual",
        "mcp",
        "output",
        "signals",
        "tasks",
    },
    "mcp": {
        "",
        "api",
        "app",
        "config",
        "deadline",
        "errors",
        "history",
        "output",
        "redaction",
        "tasks",
    },
    "app": {"api", "config", "errors", "history", "local", "output"},
    "completion": {"app", "config", "errors", "local", "output"},
    "manual": {"", "cli", "completion", "config", "local"},
    "batch": {"api", "app", "config", "deadline", "errors", "history", "output", "tasks"},
    "tasks": {"api", "clock", "deadline", "errors", "history", "output"},
    "history": {"api", "config", "errors", "redaction"},
    "config": {"api", "errors", "redaction"},
    "output": {"errors", "redaction"},
    "api": {"", "clock", "deadline", "errors"},
    "local": set(),
    "clock": set(),
    "deadline": {"errors"},
    "signals": {"errors"},
    "errors": set(),
    "redaction": set(),
    "": {"api", "errors"},
}
# Where one module of a room may be used and the rest may not, except to name a type.
NARROW = {
    ("manual", "cli"): "manual.__main__",  # writes the pages; nothing imports it
    ("completion", "local"): "local.agents.skills",  # the names that `-s` can take
    ("manual", "local"): "local.steering",  # the words that the page explains
    ("config", "api"): "api.urls",  # what a base URL and a key may look like
    ("tasks", "output"): "output.console",  # text made safe; what moves is drawn by output alone
    ("commands", "api"): "api.urls",  # the same; the client comes from the App
}


class Import(NamedTuple):
    """One module of ours that imports another, or something from outside (`module` is that)."""

    importer: str
    module: str
    typing_only: bool


def name_of(path: Path) -> str:
    """`commands/create.py` is `commands.create`; a package is its folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports() -> Iterator[Import]:
    """Every import in every module, those inside functions included."""
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = list(resolve(name, path, node))
            else:
                continue
            for target in targets:
                yield Import(name, target, id(node) in typing_only)


def resolve(name: str, path: Path, node: ast.ImportFrom) -> Iterator[str]:
    if node.level == 0:
        yield node.module or ""
        return
    package = ["rebyte_cli", *name.split(".")] if name else ["rebyte_cli"]
    if path.name != "__init__.py":
        package.pop()
    base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
    found = ".".join(part for part in base if part)
    for alias in node.names:
        inner = f"{found}.{alias.name}".removeprefix("rebyte_cli.")
        yield f"{found}.{alias.name}" if inner in MODULES else found


IMPORTS = list(imports())
INSIDE = [
    (one.importer, one.module.removeprefix("rebyte_cli").removeprefix("."), one.typing_only)
    for one in IMPORTS
    if one.module.split(".")[0] == "rebyte_cli"
]


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_room() -> None:
    assert {room(name) for name in MODULES} == set(ARROWS)


def test_arrows_point_down() -> None:
    """Each import goes to a room below, types included, as the table says."""
    for importer, module, typing_only in INSIDE:
        here, there = room(importer), room(module)
        if here == there:
            continue
        assert there in ARROWS[here], f"{importer} imports {module}"
        only = NARROW.get((here, there))
        if only is not None and not typing_only:
            assert only in (importer, module), f"{importer} imports {module}"


def test_the_table_of_arrows_has_no_arrow_too_many() -> None:
    """What the table allows is in use, so that it stays a drawing of the house."""
    used = {(room(importer), room(module)) for importer, module, _ in INSIDE}
    for here, below in ARROWS.items():
        assert below <= {there for start, there in used if start == here}, here


def test_there_are_no_cycles() -> None:
    """Between modules, imports inside functions and those for types alone counted."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for importer, module, _ in INSIDE:
        # The package hands out its library lazily and imports nothing for anybody.
        if importer and module and importer != module:
            graph[importer].add(module)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for below in graph[module]:
                visit(below, (*path, module))
            done.add(module)

    for name in graph:
        visit(name, ())


def test_commands_stand_alone() -> None:
    """They share files with a leading underscore, and never import one another."""
    for importer, module, _ in INSIDE:
        if room(importer) == room(module) == "commands" and importer != module:
            shared = module.removeprefix("commands").removeprefix(".")
            assert shared.startswith("_"), f"{importer} imports {module}"


def test_the_batch_stands_on_the_life_of_one_task() -> None:
    """It uses what makes, waits and looks; none of them knows of it."""
    for importer, module, _ in INSIDE:
        if room(module) == "batch":
            assert room(importer) in ("batch", "commands"), f"{importer} imports {module}"


@pytest.mark.parametrize("name", ["requests", "rich", "keyring", "urllib3", "werkzeug", "sqlite3"])
def test_commands_leave_the_wire_the_screen_and_the_keys_to_others(name: str) -> None:
    found = [one.importer for one in IMPORTS if one.module.split(".")[0] == name]
    assert not [importer for importer in found if room(importer) in ("commands", "app", "cli")]


def test_one_door_to_each_library() -> None:
    """Which room may import which heavy package."""
    doors = {
        "requests": {"api"},
        "urllib3": {"api"},
        "keyring": {"config"},
        "rich": {"output"},
        "werkzeug": {"local"},
        "tomli_w": {"config", "mcp"},
        "mcp": {"mcp"},
        "pydantic": {"mcp"},
        "click": {"cli", "commands", "manual", "output"},
    }
    for library, rooms in doors.items():
        used = {room(one.importer) for one in IMPORTS if one.module.split(".")[0] == library}
        assert used <= rooms, library


def test_the_local_service_shares_nothing_with_the_client() -> None:
    """One mistake cannot pass on both sides of the wire."""
    for importer, module, _ in INSIDE:
        if room(importer) == "local":
            assert room(module) == "local", f"{importer} imports {module}"


def test_no_room_is_a_drawer() -> None:
    """Names say what is inside."""
    drawers = re.compile(r"(^|[._])(utils?|helpers?|common|misc)($|[._])")
    assert not [name for name in MODULES if drawers.search(name)]


def test_no_module_needs_what_only_unix_has() -> None:
    """Each of them is imported as far as Windows would let it; the MCP SDK sees to that itself."""
    names = [f"rebyte_cli.{name}" for name in MODULES if name and "__main__" not in name]
    code = (
        "import importlib, sys, mcp.server.mcpserver\n"
        "for name in ('fcntl', 'termios', 'pwd', 'grp', 'pty', 'tty', 'resource', 'readline'):\n"
        "    sys.modules[name] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
