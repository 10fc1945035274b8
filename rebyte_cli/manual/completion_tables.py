"""The tables that completion reads, generated from the command tree.

`completion/candidates.py` describes their format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..completion.candidates import ROOT
from .tree import Node


def tables(tree: Node) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file."""
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
