"""What `batch` reads before it starts: the input, the journal, where each line stands."""

from __future__ import annotations

import math
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

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


class Rate(click.FloatRange):
    """Creates per second: a number above 0."""

    name = "rate"

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        rate = super().convert(value, param, ctx)
        if not math.isfinite(rate):
            self.fail(f"{value!r} is not a number of creates per second", param, ctx)
        return rate


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
    """The checked input: `engines.batch.input.Input`. BadUsage names every bad line."""
    from ..engines.batch.fields import Checker, Fields
    from ..engines.batch.input import lines_of, read_input
    from ..engines.batch.template import Template
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

    def lines(file: Any) -> Any:
        return read_input(
            lines_of(file), given.name, form=given.form, template=template, checker=checker
        )

    if given.file == "-":
        if app.stdin is None:
            raise BadUsage("standard input is closed")
        return lines(app.stdin.buffer)
    try:
        with open(given.file, "rb") as file:
            return lines(file)
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
    """BadUsage when the file was begun with another number of parts: lines would run twice.

    And for stdin without a journal, before any of it is read.
    """
    if given.journal_path is None or given.journal is not None:
        return
    folder, name = os.path.split(given.file)
    own = r"" if given.shard[1] == 1 else rf"\.\d+-of-{given.shard[1]}"
    any_part = re.compile(re.escape(name) + r"(\.\d+-of-\d+)?\.journal")
    own_part = re.compile(re.escape(name) + own + r"\.journal")
    try:
        names = os.listdir(folder or ".")
    except OSError:  # not there, which others say better, or not to be listed
        return
    for other in names:
        if any_part.fullmatch(other) and not own_part.fullmatch(other):
            raise BadUsage(
                f"{given.file} was begun with another --shard: "
                f"there is {os.path.join(folder, other)}",
                hint="its lines would get a second task; --journal PATH names another journal",
            )


def check_report(given: Given, report: str) -> None:
    """BadUsage when a report cannot be written there, or would take the place of what is read."""
    from ..output import batch_report

    batch_report.check(report)
    for other in filter(os.path.exists, filter(None, (given.file, given.template, given.journal))):
        if os.path.exists(report) and os.path.samefile(other, report):
            raise BadUsage(f"--report {report}: would overwrite {other}")


class Resolution(NamedTuple):
    """A line, and its task's id or None when it has none."""

    at: int
    task: str | None


def resolutions(words: Iterable[str], lines: Any, mine: Iterable[int]) -> list[Resolution]:
    """`7=ID` and `7=none`, with a line's number or its key before the sign."""
    found: list[Resolution] = []
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
        one = Resolution(at, None if task == "none" else task)
        if any(at == other.at or (one.task and one.task == other.task) for other in found):
            raise BadUsage(f"--resolve {word}: the line or the task was named twice")
        found.append(one)
    return found


def again(app: App) -> str:
    """The command line that was typed, to be typed again."""
    from shlex import join

    return join(["rebyte", *app.argv])
