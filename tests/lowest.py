"""The lowest versions that `pyproject.toml` allows, as constraints: `python -m tests.lowest`.

`make lowest` installs them in an environment of their own and runs the core of the suite there.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
_BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9][0-9.]*)(?:,<[0-9.]+)?(?:\s*;.*)?")


def lowest(dependencies: list[str]) -> dict[str, str]:
    """Names to their lower bounds; ValueError for a dependency that has none."""
    found = {}
    for each in dependencies:
        bound = _BOUND.fullmatch(each)
        if bound is None:
            raise ValueError(f"{each!r} has no lower bound that could be tested")
        found[bound[1]] = bound[2]
    return found


def run_time() -> dict[str, str]:
    """What the command itself needs, `rebyte mcp` and `--schema` included."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return lowest([*project["dependencies"], *extras["mcp"], *extras["schema"]])


def main() -> None:
    for name, version in run_time().items():
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
