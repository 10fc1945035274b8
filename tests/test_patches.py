"""What tests may patch: no constant of ours. A time or a limit is a value that is passed in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What a machine has, and what a test cannot give it.
OF_THE_MACHINE = {
    "rebyte_cli.completion.install._BASH_COMPLETION": "a package that may be installed or not",
    "rebyte_cli.completion.install._BASH_STARTS": "start files for all of its users",
    "rebyte_cli.system.permissions.MOUNTS": "the kernel's table of what is mounted",
}
PATCHES = ("setattr", "delattr", "setitem", "delitem")


def patched_constants(source: str) -> Iterator[str]:
    """The constants of ours that a test changes, with their modules; also in scripts inside it."""
    if not re.search(r"(set|del)(attr|item)\(|\.[A-Z_\d]+ *=", source):  # most files have none
        return
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                modules[each.asname or each.name] = f"{node.module}.{each.name}"
        elif isinstance(node, ast.Import):
            modules.update({each.asname: each.name for each in node.names if each.asname})
    for node in ast.walk(tree):
        for target in _changed(node):
            base, dot, rest = target.partition(".")
            name = modules.get(base, base) + dot + rest
            if re.fullmatch(r"rebyte_cli\..*\b_?[A-Z][A-Z\d_]+", name):
                yield name
        if isinstance(node, ast.Constant) and "rebyte_cli" in str(node.value):
            with suppress(SyntaxError):  # of a text that is no script
                yield from patched_constants(str(node.value))


def _changed(node: ast.AST) -> Iterator[str]:
    """What a statement or a call changes, as it names it."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (ast.unparse(each) for each in targets if isinstance(each, ast.Attribute))
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) in PATCHES:
        first, *others = node.args
        if isinstance(first, ast.Constant):
            yield str(first.value)
        else:
            yield ast.unparse(first)
            names = (each.value for each in others[:1] if isinstance(each, ast.Constant))
            yield from (f"{ast.unparse(first)}.{name}" for name in names)


@pytest.mark.parametrize(
    "source",
    [
        "from rebyte_cli.batch import runner\nmonkeypatch.setattr(runner, 'GRACE', 1)",
        "from rebyte_cli.batch import runner as it\nwith x as p: p.setattr(it, 'GRACE', 1)",
        "from rebyte_cli.batch import runner\nmonkeypatch.setitem(runner.GRACE, 2, 1)",
        "monkeypatch.setattr('rebyte_cli.batch.runner.GRACE', 1)",
        "import rebyte_cli.batch.runner\nrebyte_cli.batch.runner.GRACE = 1",
        "SCRIPT = 'from rebyte_cli.batch import runner; runner.GRACE = runner.LISTEN = 1'",
    ],
)
def test_every_way_to_patch_a_constant_is_seen(source: str) -> None:
    assert "rebyte_cli.batch.runner.GRACE" in set(patched_constants(source))


@pytest.mark.slow
def test_no_test_patches_a_constant() -> None:
    """It takes the time that users have, reaches a limit with real data, or passes another one."""
    found = {
        name: str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if path != Path(__file__)
        for name in patched_constants(path.read_text(encoding="utf-8"))
    }
    assert found.keys() == OF_THE_MACHINE.keys(), found
