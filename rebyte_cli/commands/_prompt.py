"""Where a prompt comes from: exactly one of argument, option, file, stdin, editor."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from ..app import App
from ..engines.prompts import check_prompt
from ..errors import BadUsage, NotFound

F = TypeVar("F", bound=Any)


def prompt_options(function: F) -> F:
    """Add `[PROMPT]`, `-p/--prompt` and `--prompt-file` to a command."""
    decorators = (
        click.argument("prompt", required=False),
        click.option("-p", "--prompt", "prompt_option", metavar="TEXT", help="The prompt."),
        click.option(
            "--prompt-file",
            metavar="FILE",
            type=click.Path(dir_okay=False, allow_dash=True),
            help="Read the prompt from FILE; `-` is stdin.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def read_prompt(app: App, argument: str | None, option: str | None, file: str | None) -> str:
    """The one prompt that was given, checked.

    Raises BadUsage for none, several, an empty one, one over 100,000 characters, or bytes that
    are not UTF-8 (with the place of the first bad one).
    """
    given = [source for source in (argument, option, file) if source is not None]
    if len(given) > 1:
        raise BadUsage("give the prompt once: as an argument, with -p, or with --prompt-file")
    if argument == "-":
        argument, file = None, "-"
    if file is not None:
        text = _decode(_read_bytes(app, file), "standard input" if file == "-" else file)
    elif given:
        text = given[0]
    elif app.interactive:
        text = _from_editor(app)
    else:
        raise BadUsage(
            "no prompt",
            hint="give it as an argument, with -p TEXT, or with --prompt-file FILE (- is stdin)",
        )
    return check_prompt(text)


def _read_bytes(app: App, file: str) -> bytes:
    if file == "-":
        data: bytes = app.stdin.buffer.read()
        return data
    try:
        with open(file, "rb") as source:
            return source.read()
    except FileNotFoundError:
        raise NotFound(f"no such file: {file}") from None
    except OSError as error:
        raise BadUsage(f"cannot read {file}: {error.strerror}") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadUsage(
            f"{name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        ) from None


def _from_editor(app: App) -> str:
    try:
        text = click.edit(
            "",
            editor=app.environment.get("VISUAL") or app.environment.get("EDITOR"),
            extension=".md",
        )
    except click.ClickException as error:
        raise BadUsage(error.format_message()) from None
    if text is None:
        raise BadUsage("the editor left no prompt")
    return text
