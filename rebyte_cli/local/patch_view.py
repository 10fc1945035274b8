"""A patch as HTML: each file folded, with how many lines it adds and removes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..system.web_page import folded, h


class FileDiff(NamedTuple):
    """The part of a patch that changes one file: its path, and all its lines, headers too."""

    name: str
    lines: list[str]
    added: int
    removed: int


def render(text: str) -> str:
    """What a patch changes, its files folded unless there is only one."""
    files = list(_files(text))
    added, removed = sum(one.added for one in files), sum(one.removed for one in files)
    is_open = " open" if len(files) == 1 else ""
    total = f"{len(files)} {'file' if len(files) == 1 else 'files'}{_counts(added, removed)}"
    return f'<p class="about">{total}</p>' + "".join(
        folded(
            f"<code>{h(one.name)}</code>{_counts(one.added, one.removed)}",
            '<div class="scroll" tabindex="0"><pre class="patch">'
            f"{''.join(_lines(one.lines))}</pre></div>",
            f' class="file" id="file-{number}"{is_open}',
        )
        for number, one in enumerate(files, 1)
    )


def _files(text: str) -> Iterator[FileDiff]:
    """The files of a patch that git made, or of any other unified diff."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n"):
        if line.startswith("diff ") and lines:
            yield _file(lines)
            lines = []
        lines.append(line)
    if lines:
        yield _file(lines)


def _file(lines: list[str]) -> FileDiff:
    name, old, added, removed, is_header = lines[0].rpartition(" b/")[2], "", 0, 0, True
    for line in lines:
        is_header = is_header and not line.startswith("@@")
        if is_header and line.startswith("--- "):
            old = line[4:].removeprefix("a/")
        elif is_header and line.startswith(("+++ ", "rename to ")):
            name = line.removeprefix("rename to ").removeprefix("+++ ").removeprefix("b/")
        elif not is_header:
            added += line.startswith("+")
            removed += line.startswith("-")
    return FileDiff(old if name == "/dev/null" else name, lines, added, removed)


def _counts(added: int, removed: int) -> str:
    if not (added or removed):
        return ""
    return f' <ins class="count">+{added}</ins> <del class="count">−{removed}</del>'  # noqa: RUF001


def _lines(lines: list[str]) -> Iterator[str]:
    name = "b"  # until the first hunk
    for line in lines:
        if name != "b" or line.startswith("@@"):
            name = {"@": "i", "+": "ins", "-": "del"}.get(line[:1], "span")
        yield f"<{name}>{h(line)}\n</{name}>"
