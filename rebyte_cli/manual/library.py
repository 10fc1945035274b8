"""Every page by its name, in Markdown: written, generated, or written around generated parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from .commands import command_page, option_text, statuses
from .facts import STATUSES, VARIABLES
from .tree import Node

# The pages that somebody wrote.
WRITTEN = (
    "rebyte.1",
    "rebyte-config.5",
    "rebyte-api.7",
    "rebyte-examples.7",
    "rebyte-from-curl.7",
    "rebyte-local.7",
    "rebyte-shards.7",
    "rebyte-tutorial.7",
)


def names(tree: Node) -> Iterator[str]:
    """The names of all pages: `rebyte-create.1`, …"""
    yield from WRITTEN
    for node in tree["commands"]:
        yield f"rebyte-{node['name']}.1"


def markdown(name: str, tree: Node) -> str:
    """One page. KeyError when there is none of that name."""
    if name in WRITTEN:
        return fill(written(f"{name}.md"), tree)
    for node in tree["commands"]:
        if name == f"rebyte-{node['name']}.1":
            return command_page(node)
    raise KeyError(name)


def written(file: str) -> str:
    """A file of `pages/` as it is."""
    return files(__package__).joinpath("pages", file).read_text(encoding="utf-8")


def fill(text: str, tree: Node) -> str:
    """The text with each `{{part}}` that stands on a line of its own generated."""
    return re.sub(r"^\{\{([a-z ]+)\}\}$", lambda match: _part(match[1], tree), text, flags=re.M)


def _part(name: str, tree: Node) -> str:
    return "\n\n".join(_PARTS[name](tree))


def _commands(tree: Node) -> Iterator[str]:
    for node in tree["commands"]:
        subs = ", ".join(sub["name"] for sub in node["commands"])
        yield f"`{node['name']}`\n:   {node['summary']}{f' ({subs})' if subs else ''}."


def _skill_commands(tree: Node) -> Iterator[str]:
    lines = []
    for node in tree["commands"]:
        subs = "|".join(sub["name"] for sub in node["commands"])
        lines.append(f"- `{node['name']}{f' {subs}' if subs else ''}`: {node['summary']}")
    yield "\n".join(lines)


def _steering(_tree: Node) -> Iterator[str]:
    from ..local.steering import STEERING

    for word, text in STEERING.items():
        quoted = re.sub(r"(\[\[[^\]]*\]\])", r"`\1`", text.replace("\\", "\\\\"))
        yield f"`{word}`\n:   {quoted[:1].upper()}{quoted[1:]}."


def _skill_statuses(_tree: Node) -> Iterator[str]:
    yield "\n".join(f"- {status}: {text}" for status, text in STATUSES.items() if status < 130)


_PARTS = {
    "commands": _commands,
    "shared options": lambda tree: map(option_text, tree["sharedOptions"]),
    "statuses": lambda _tree: statuses(STATUSES),
    "variables": lambda _tree: (f"`{name}`\n:   {text}" for name, text in VARIABLES.items()),
    "steering": _steering,
    "skill commands": _skill_commands,
    "skill statuses": _skill_statuses,
}
