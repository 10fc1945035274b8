"""The manual pages in Markdown: hand-written, generated, or hand-written with generated parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.resources import files

from .facts import EVERY_COMMAND, STATUSES, VARIABLES
from .tree import Node

SEE_ALSO = "rebyte(1), rebyte-config(5), rebyte-examples(7)"
# Further pages about a command.
MORE = {
    "api": "rebyte-api(7)",
    "apply": "rebyte-workflow(7)",
    "batch": "rebyte-shards(7)",
    "check": "rebyte-check(7)",
    "land": "rebyte-workflow(7), rebyte-check(7)",
    "local": "rebyte-local(7), rebyte-local-agents(7)",
}


def command_page(node: Node) -> str:
    """The page of a top-level command and its subcommands."""
    parts = [f"# rebyte-{node['name']}(1): {_start(node['summary'])}"]
    parts += ["## Synopsis", *map(_synopsis, _leaves(node))]
    parts += ["## Description", *_description(node)]
    if node["commands"]:
        parts.append("## Commands")
        for sub in node["commands"]:
            parts += [f"### {sub['path']}", *_description(sub)]
            parts += [*map(option_text, sub["options"]), *_examples(sub)]
    elif node["options"]:
        parts += ["## Options", *map(option_text, node["options"])]
    parts.append(
        "rebyte(1) describes the options that all commands share (`-P`, `-o`, `--fields` and "
        "others)."
    )
    if any(leaf["prints"] for leaf in _leaves(node)):
        parts += ["## Output", *_outputs(node)]
    found = {status for leaf in _leaves(node) for status in leaf["exitStatuses"]}
    # Only rebyte(1) lists the signals, since they can end any command.
    own = (status for status in found if status not in EVERY_COMMAND or status <= 2)
    parts += ["## Exit status", *statuses(own)]
    if node["examples"]:
        parts += ["## Examples", *_examples(node)]
    more = MORE.get(node["name"])
    parts += ["## See also", f"{SEE_ALSO}, {more}" if more else SEE_ALSO]
    return "\n\n".join(parts) + "\n"


def _description(node: Node) -> Iterator[str]:
    """The paragraphs, with the names of the arguments in italics."""
    words = {
        word
        for argument in node["arguments"]
        for word in re.findall(r"[A-Z]+", argument["metavar"])
    }
    for paragraph in map(_text, node["description"]):
        if words:
            pattern = rf"(`[^`]*`)|(?<![\w*$])({'|'.join(sorted(words))})(?![\w*=])"
            paragraph = re.sub(pattern, lambda found: found[1] or f"*{found[2]}*", paragraph)
        yield paragraph


def option_text(option: Node) -> str:
    """One option: its names, its value and its help text."""
    names = ", ".join(f"`{name}`" for name in option["names"])
    taken = "" if option["flag"] else f" {_placeholder(option['metavar'])}"
    more = (
        " Can be repeated." if option["multiple"] and "repeat" not in option["help"].lower() else ""
    )
    default = option["names"][0] if option["flag"] and option["default"] else option["default"]
    if default not in (None, (), [], "", 0):
        more += f" Default: `{default}`."
    return f"{names}{taken}\n:   {_text(option['help'])}{more}"


def statuses(numbers: Iterable[int]) -> Iterator[str]:
    """One definition for each exit status."""
    for status in sorted(set(numbers)):
        text = STATUSES[status]
        yield f"`{status}`\n:   {text[:1].upper()}{text[1:]}."


def _leaves(node: Node) -> list[Node]:
    """The commands that do something: verbs, and a noun that prints something itself."""
    verbs = [leaf for sub in node["commands"] for leaf in _leaves(sub)]
    return [node, *verbs] if node["prints"] or not verbs else verbs


def _synopsis(node: Node) -> str:
    arguments = []
    for argument in node["arguments"]:
        if " " in argument["metavar"]:  # spelled out, as `[PROMPT] [-]`
            arguments.append(re.sub(r"[A-Z]+", r"*\g<0>*", argument["metavar"]))
            continue
        name = re.sub(r"[\[\]]", "", argument["metavar"])
        bracketed = argument["metavar"].startswith("[") or not argument["required"]
        if argument["multiple"] and not name.endswith(("…", "]")):
            name += "…"
        shown = _placeholder(name)
        arguments.append(f"[{shown}]" if bracketed else shown)
    words = [f"`rebyte {node['path']}`"]
    if node["options"]:
        words.append("[*options*]")
    return " ".join([*words, *arguments])


def _placeholder(metavar: str) -> str:
    return f"`{metavar}`" if "|" in metavar else f"*{metavar}*"


def _outputs(node: Node) -> Iterator[str]:
    for leaf in _leaves(node):
        prints = leaf["prints"]
        if not prints:
            continue
        about = f"`rebyte {leaf['path']}` prints " if node["commands"] else "Prints "
        parts = any(other["with"] == "-o json" for other in prints["also"])
        if prints["text"]:
            about += "text" + (
                "." if not prints["kind"] else "; with `-o jsonl`, " if parts else "; as JSON, "
            )
        if prints["kind"]:
            what = f"records of the kind `{prints['kind']}`"
            about += f"a list of {what}" if prints["list"] else what
            about += f", with the fields {', '.join(prints['fields'])}."
        for other in prints["also"]:
            about += f" With `{other['with']}`: the kind `{other['kind']}`"
            new = set(other["fields"]) - set(prints["fields"])
            about += f", with the fields {', '.join(other['fields'])}." if new else "."
        yield about


def _examples(node: Node) -> Iterator[str]:
    if node["examples"]:
        yield "\n".join(["```", *node["examples"], "```"])


def _start(summary: str) -> str:
    """A summary as it appears after a dash: lower case, unless it starts with a name."""
    first = summary.split(maxsplit=1)[0] if summary else ""
    return _text(summary[:1].lower() + summary[1:] if first[1:].islower() else summary)


def _text(text: str) -> str:
    """Help text as Markdown. Backticks are its only markup."""
    parts = text.split("`")
    return "`".join(
        part if at % 2 else part.replace("\\", "\\\\").replace("*", "\\*")
        for at, part in enumerate(parts)
    )


def hand_written() -> list[str]:
    """The names of the pages in `pages/`."""
    pages = files(__package__).joinpath("pages").iterdir()
    return sorted(page.name.removesuffix(".md") for page in pages if page.name.startswith("rebyte"))


def names(tree: Node) -> Iterator[str]:
    """The names of all pages, such as `rebyte-create.1`."""
    yield from hand_written()
    for node in tree["commands"]:
        yield f"rebyte-{node['name']}.1"


def markdown(name: str, tree: Node) -> str:
    """Return one page. Raises KeyError if there is no page of that name."""
    if name in hand_written():
        return fill(written(f"{name}.md"), tree)
    for node in tree["commands"]:
        if name == f"rebyte-{node['name']}.1":
            return command_page(node)
    raise KeyError(name)


def written(file: str) -> str:
    """Return a file of `pages/` unchanged."""
    return files(__package__).joinpath("pages", file).read_text(encoding="utf-8")


def fill(text: str, tree: Node) -> str:
    """Replace each line that consists of `{{part}}` with the generated part."""

    def part(found: re.Match[str]) -> str:
        return "\n\n".join(_PARTS[found[1]](tree))

    return re.sub(r"^\{\{([a-z ]+)\}\}$", part, text, flags=re.M)


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
