"""Write the generated files into a checkout: `python -m rebyte_cli.manual [FOLDER]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..cli import root
from .builder import fill, markdown, names, written
from .completion_tables import tables
from .roff import page
from .tree import describe


def generated() -> Iterator[tuple[str, str]]:
    """Yield each generated file: its path in the checkout and its text."""
    tree = describe(root)
    for name, text in tables(tree):
        yield f"rebyte_cli/completion/tables/{name}", text
    for name in names(tree):
        yield f"man/{name}", page(markdown(name, tree))
    yield "rebyte_cli/SKILL.md", fill(written("SKILL.md"), tree)


def write(folder: Path) -> list[str]:
    """Write changed files, delete obsolete ones, and return the paths of both."""
    wanted = dict(generated())
    changed = []
    for path, text in wanted.items():
        file = folder / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            changed.append(path)
    for place in ("man", "rebyte_cli/completion/tables"):
        for file in (folder / place).iterdir():
            if f"{place}/{file.name}" not in wanted:
                file.unlink()
                changed.append(f"{place}/{file.name}")
    return changed


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        sys.stdout.write(f"{path}\n")
