"""What this package needs of others: named, bounded from below, and installed as it is named."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from tests import lowest

PACKAGE = Path(__file__).parent.parent / "rebyte_cli"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdigit()]


def test_every_dependency_has_a_lower_bound_that_is_met_here() -> None:
    bounds = lowest.run_time()
    assert len(bounds) > 5
    for name, bound in bounds.items():
        assert numbers(version(name)) >= numbers(bound), name


def test_every_library_that_is_imported_is_named() -> None:
    """Not only those that come along with another one: their bounds are not ours."""
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"rebyte_cli"}
    distributions = packages_distributions()
    needed = {distributions[name][0].lower().replace("_", "-") for name in foreign}
    assert needed == {name.lower() for name in lowest.run_time()}


def test_the_constraints_of_make_lowest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lowest"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    pinned = [line.split("==") for line in done.stdout.splitlines()]
    assert {name: bound for name, bound in pinned} == lowest.run_time()  # noqa: C416 -- pairs of any length would pass in dict()


@pytest.mark.parametrize("written", ["click", "click==8.2", "click<9", "click @ file:///x"])
def test_a_dependency_without_a_lower_bound_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no lower bound"):
        lowest.lowest([written])


def test_bounds_are_read_with_what_stands_beside_them() -> None:
    assert lowest.lowest(["a>=1.2", "b-c[x]>=3,<4", 'd>=5.6; python_version < "3.12"']) == {
        "a": "1.2",
        "b-c": "3",
        "d": "5.6",
    }


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("sys.implementation.name = 'pypy'", "Error: rebyte needs CPython, not pypy\n"),
        (
            "sys.platform = 'win32'",
            "Error: rebyte runs on Linux and macOS. On Windows, install it in WSL.\n",
        ),
    ],
)
def test_a_python_that_lacks_something_is_refused_in_one_line(other: str, said: str) -> None:
    """PyPy and Windows are not here: these names are what tells them apart."""
    code = (
        f"import sys; {other}\n"
        "sys.argv = ['rebyte', *sys.argv[1:]]\n"
        "from rebyte_cli.__main__ import main; main()"
    )
    for words, status, printed in ((["list"], 1, said), (["--version"], 0, "")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, printed)
