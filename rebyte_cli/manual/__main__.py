"""Write the generated files into a checkout: `python -m rebyte_cli.manual [FOLDER]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..cli import root
from ..completion.candidates import ROOT
from .builder import fill, markdown, names, written
from .roff import page
from .tree import Node, describe


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


def tables(tree: Node) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each table that completion reads.

    `completion/candidates.py` describes their format.
    """
    lines = [_line("command", ROOT, "")]
    lines += _subs(tree["commands"])
    lines += [_option("option", option) for option in tree["options"]]
    lines += [_option("shared", option) for option in tree["sharedOptions"]]
    yield f"{ROOT}.txt", "".join(lines)
    for node in tree["commands"]:
        yield f"{node['name']}.txt", "".join(_section(node))


def _section(node: Node) -> Iterator[str]:
    prints = node["prints"] or {"fields": [], "also": []}
    # Events have fields too, but with --stream most people want the fields of the task.
    also = [
        name
        for other in prints["also"]
        if "--stream" not in other["with"]
        for name in other["fields"]
    ]
    yield _line("command", node["path"], ",".join(dict.fromkeys([*prints["fields"], *also])))
    yield from _subs(node["commands"])
    for option in node["options"]:
        yield _option("option", option)
    for argument in node["arguments"]:
        yield _line("argument", argument["values"] or "=", "+" if argument["multiple"] else "")
    for sub in node["commands"]:
        yield from _section(sub)


def _subs(commands: Iterable[Node]) -> Iterator[str]:
    for node in commands:
        yield _line("sub", node["name"], node["summary"])
        for alias in node["aliases"]:
            yield _line("alias", alias, node["name"])


def _option(kind: str, option: Node) -> str:
    return _line(
        kind,
        " ".join(option["names"]),
        option["values"] or "",
        "+" if option["multiple"] else "",
        option["help"],
    )


def _line(*columns: str) -> str:
    return "\t".join(" ".join(column.split()) for column in columns) + "\n"


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        sys.stdout.write(f"{path}\n")
