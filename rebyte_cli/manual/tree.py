"""The Click command tree as plain documents, from which everything else is generated."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from .. import __version__
from ..completion.values import KINDS
from .facts import EVERY_COMMAND, STATUSES, VARIABLES

SCHEMA_VERSION = 1

Node = Mapping[str, Any]


def describe(root: click.Group) -> dict[str, Any]:
    """Return the whole tree: what `rebyte schema` prints.

    Keys: `schemaVersion`, `name`, `version`, `summary`, `description`, `examples`,
    `exitStatuses` and `environment` (each with its meaning), `options` (of the root only),
    `sharedOptions` (accepted before and after every command name) and `commands` (see
    `_command`).
    """
    with _context(root, "rebyte") as ctx:
        everywhere = [param for param in _options(root, ctx) if _is_shared(param, ctx)]
        own = [param for param in _options(root, ctx) if not _is_shared(param, ctx)]
        return {
            "schemaVersion": SCHEMA_VERSION,
            "name": "rebyte",
            "version": __version__,
            **_help(root),
            "exitStatuses": {str(status): text for status, text in STATUSES.items()},
            "environment": dict(VARIABLES),
            "options": [_option(param) for param in own],
            "sharedOptions": [_option(param) for param in everywhere],
            "commands": list(_commands(root, ctx)),
        }


def walk(tree: Node) -> Iterator[Node]:
    """Every command of a tree, parents first."""
    for node in tree["commands"]:
        yield node
        yield from walk(node)


def printed(tree: Node) -> dict[str, list[str]]:
    """Which definitions of the results' schema each command prints, by its path."""
    found: dict[str, list[str]] = {}
    for node in walk(tree):
        prints = node["prints"]
        if prints and prints["kind"]:
            lists = [f"{prints['kind']}-list"] if prints["list"] else []
            also = [other["kind"] for other in prints["also"]]
            found[node["path"]] = list(dict.fromkeys([*lists, prints["kind"], *also]))
    return found


def _commands(group: click.Group, ctx: click.Context, above: str = "") -> Iterator[dict[str, Any]]:
    names = group.list_commands(ctx)
    other_names = getattr(group, "aliases", {})
    for name in names:
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        node = _command(command, ctx, name, f"{above} {name}".strip())
        node["aliases"] = [
            alias for alias, meant in other_names.items() if meant == name and alias not in names
        ]
        if not above:
            # The root's help shows the first line of the command's file, so this does too.
            first = (sys.modules[_function(command).__module__].__doc__ or "").split("\n")[0]
            node["summary"] = first.rstrip(".")
        yield node


def _command(command: click.Command, parent: click.Context, name: str, path: str) -> dict[str, Any]:
    """One command.

    `name`, `path` (`workspace list`), `aliases` (other names), `summary`, `description`
    (paragraphs), `examples` (lines), `usage`, `arguments`, `options`, `prints` (null, or `kind`,
    `list`, `text`, `fields` and `also`, see `_also`), `exitStatuses` (numbers), `commands`.
    """
    with _context(command, name, parent) as ctx:
        statuses = getattr(command, "statuses", ())
        return {
            "name": name,
            "path": path,
            **_help(command),
            "usage": " ".join(["rebyte", path, *command.collect_usage_pieces(ctx)]),
            "arguments": [
                {"name": param.name, **_value(param), "flag": False}
                for param in command.params
                if isinstance(param, click.Argument)
            ],
            "options": [
                _option(param) for param in _options(command, ctx) if not _is_shared(param, ctx)
            ],
            "prints": _prints(command),
            "exitStatuses": sorted({*EVERY_COMMAND, *statuses}),
            "commands": list(_commands(command, ctx, path))
            if isinstance(command, click.Group)
            else [],
        }


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def _help(command: click.Command) -> dict[str, Any]:
    """`summary` (one line), `description` (paragraphs) and `examples` (lines, as typed)."""
    description: list[str] = []
    examples: list[str] = []
    for block in (command.help or "").replace("\b\n", "").split("\n\n"):
        if block.startswith(" "):
            lines = block.splitlines()
            indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            examples += [line[indent:] for line in lines]
        elif block.strip() and not re.fullmatch(r"Examples?:", block.strip()):
            description.append(" ".join(block.split()))
    summary = description[0] if description else ""
    first = re.match(r"(.+?[.:])(?= [A-Z]|$)", summary)
    summary = (first[1] if first else summary).rstrip(".:")
    return {"summary": summary, "description": description, "examples": examples}


def _options(command: click.Command, ctx: click.Context) -> Iterator[click.Option]:
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and not param.hidden:
            yield param


def _is_shared(option: click.Option, ctx: click.Context) -> bool:
    """Whether every command accepts it: the root has it, and Click passes it to no function."""
    if option.expose_value or option.name == "version":
        return False
    root = ctx.find_root()
    return any(param.name == option.name for param in root.command.get_params(root))


def _option(param: click.Option) -> dict[str, Any]:
    variable = re.search(r"\((REBYTE_\w+)\)", param.help or "")
    return {
        "names": [*param.opts, *param.secondary_opts],
        **_value(param),
        "flag": param.is_flag,
        "help": param.help or "",
        "environment": param.envvar or (variable[1] if variable else None),
    }


def _value(param: click.Parameter) -> dict[str, Any]:
    kind = param.type
    default = param.default
    if callable(default) or not isinstance(default, str | int | float | bool | list | None):
        default = None  # Click's marker for "no default"
    flag = isinstance(param, click.Option) and param.is_flag
    return {
        "metavar": None if flag else _metavar(param),
        "type": "boolean" if flag else getattr(kind, "name", "text"),
        "choices": list(kind.choices) if isinstance(kind, click.Choice) else None,
        "required": param.required,
        "multiple": param.multiple or param.nargs == -1,
        "default": None if flag and default is False else default,
        "values": _values(param),
    }


def _metavar(param: click.Parameter) -> str:
    if isinstance(param.type, click.Choice) and not param.metavar:
        return "|".join(map(str, param.type.choices))
    return param.metavar or (param.name or "").upper()


def _values(param: click.Parameter) -> str | None:
    """What TAB offers, in the format of completion/candidates.py; None for a flag."""
    if isinstance(param, click.Option) and (param.is_flag or param.count):
        return None
    own = param._custom_shell_complete
    if own is not None:
        kind = own.__name__ if own.__name__ in KINDS else ""
        # Its fixed words; the function must not depend on its arguments.
        found = own(click.Context(click.Command("")), param, "")
        words = ",".join(str(getattr(item, "value", item)) for item in found)
        return f"{kind}={words}" if words or not kind else kind
    if isinstance(param.type, click.Choice):
        return "=" + ",".join(map(str, param.type.choices))
    if isinstance(param.type, click.Path):
        return "file" if param.type.file_okay else "dir"
    return "file" if isinstance(param.type, click.File) else "="


def _prints(command: click.Command) -> dict[str, Any] | None:
    output = getattr(command, "output", None)
    if output is None or not (output.kind or output.text):
        return None
    kind, text = output.kind, output.text
    returned = _function(command).__annotations__.get("return", "")
    return {
        "kind": kind.name if kind else None,
        "list": "RecordList" in returned.split(" | "),
        "text": text,
        "fields": list(kind.fields) if kind else [],
        "also": list(_also(command)),
    }


def _also(command: click.Command) -> Iterator[dict[str, Any]]:
    """What a command prints instead with an option: `with`, `kind`, `fields`."""
    for option, kind in getattr(command, "alternatives", dict)().items():
        name, fields = (kind, ()) if isinstance(kind, str) else (kind.name, kind.fields)
        yield {"with": option, "kind": name, "fields": list(fields)}


def _function(command: click.Command) -> Any:
    """The command's function, without the wrapper that passes it the App."""
    return getattr(command.callback, "__wrapped__", command.callback)
