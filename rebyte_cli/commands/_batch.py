"""What `batch` reads before it starts: the input, the journal, where each line stands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..app import App
from ..errors import BadUsage, NotFound

if TYPE_CHECKING:
    _Pairs = click.ParamType[tuple[int, int]]
else:  # older releases of Click have no generic types
    _Pairs = click.ParamType

_SHARD = re.compile(r"(\d+)/(\d+)", re.ASCII)


class Shard(_Pairs):
    """`I/N`: the I-th of N parts, from 1."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        found = _SHARD.fullmatch(str(value).strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not I/N with I from 1 to N (1/4 to 4/4)", param, ctx)
        return int(found[1]), int(found[2])


class Given(NamedTuple):
    """Which file, and how it is to be read."""

    file: str
    text: bool
    csv: bool
    template: str | None
    fresh: bool
    shard: tuple[int, int]
    journal: str | None

    @property
    def name(self) -> str:
        """What errors call the input."""
        return "standard input" if self.file == "-" else self.file

    @property
    def form(self) -> Any:
        """jsonl, text or csv."""
        if self.text and self.csv:
            raise BadUsage("--text and --csv exclude each other")
        if self.text:
            return "text"
        return "csv" if self.csv or self.file.lower().endswith(".csv") else "jsonl"

    @property
    def journal_path(self) -> Path:
        """Where the journal is. BadUsage for stdin without `--journal`."""
        if self.journal is not None:
            return Path(self.journal)
        if self.file == "-":
            raise BadUsage(
                "a batch from standard input needs --journal PATH",
                hint="that is where a second run finds what the first one did",
            )
        number, of = self.shard
        part = "" if of == 1 else f".{number}-of-{of}"
        return Path(f"{self.file}{part}.journal")


def read(app: App, given: Given, defaults: Mapping[str, Any], files: Iterable[str]) -> Any:
    """The checked input: `engines.batch_input.Input`. BadUsage names every bad line."""
    from ..engines.batch_fields import Checker, Fields
    from ..engines.batch_input import read_input
    from ..engines.batch_template import Template
    from ..engines.uploads import check

    template = None
    if given.template is not None:
        template = Template(_text_of(given.template), given.template)
    body = dict(defaults)
    workspace = body.pop("workspaceId", None)
    if given.fresh and workspace:
        raise BadUsage("--workspace and --workspace-per-line exclude each other")
    checker = Checker(
        Fields(body, workspace, tuple(check(files))),
        fresh=given.fresh,
        find_files=lambda path: check([path]),
    )
    if given.file == "-":
        return read_input(
            app.stdin.buffer, given.name, form=given.form, template=template, checker=checker
        )
    try:
        with open(given.file, "rb") as source:
            return read_input(
                source, given.name, form=given.form, template=template, checker=checker
            )
    except FileNotFoundError:
        raise NotFound(f"no such file: {given.file}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {given.file}: {error.strerror}") from None


def _text_of(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8 (byte {error.start + 1})") from None


def header(app: App, given: Given, digest: str) -> dict[str, Any]:
    """What the journal must be of: this input, this part of it, this account."""
    number, of = given.shard
    settings = app.settings
    return {
        "input": digest,
        "shard": f"{number}/{of}",
        "profile": settings.profile,
        "origin": settings.origin,
    }


def refuse_other_shards(given: Given) -> None:
    """BadUsage when the file was begun with another number of parts: lines would run twice."""
    if given.journal is not None or given.file == "-":
        return
    folder, name = os.path.split(given.file)
    own = r"" if given.shard[1] == 1 else rf"\.\d+-of-{given.shard[1]}"
    any_part = re.compile(re.escape(name) + r"(\.\d+-of-\d+)?\.journal")
    own_part = re.compile(re.escape(name) + own + r"\.journal")
    for other in os.listdir(folder or "."):
        if any_part.fullmatch(other) and not own_part.fullmatch(other):
            raise BadUsage(
                f"{given.file} was begun with another --shard: "
                f"there is {os.path.join(folder, other)}",
                hint="its lines would get a second task; --journal PATH names another journal",
            )


class Resolution(NamedTuple):
    """A line, and its task's id or None when it has none."""

    at: int
    task: str | None


def resolutions(words: Iterable[str], lines: Any, mine: Iterable[int]) -> list[Resolution]:
    """`7=ID` and `7=none`, with a line's number or its key before the sign."""
    found = []
    ours = set(mine)
    by_name = {line.key: at for at, line in enumerate(lines)}
    by_name.update({str(line.number): at for at, line in enumerate(lines)})
    for word in words:
        name, sign, task = word.rpartition("=")
        if not sign or not task:
            raise BadUsage(f"--resolve {word}: must be LINE=ID or LINE=none")
        at = by_name.get(name)
        if at is None or at not in ours:
            raise BadUsage(f"--resolve {word}: there is no line {name}")
        found.append(Resolution(at, None if task == "none" else task))
    return found


def again(app: App) -> str:
    """The command line that was typed, to be typed again."""
    from shlex import join

    return join(["rebyte", *app.argv])
