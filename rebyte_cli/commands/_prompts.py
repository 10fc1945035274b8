"""Where a prompt comes from: exactly one of argument, option, file, stdin, editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..app import App
from ..errors import BadUsage, RebyteError
from ..tasks.prompt import check_prompt

# -- Questions to the person at the terminal: may this happen, and what is the secret.

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(app: App, question: str, *, yes: bool) -> None:
    """Return when the user agrees, by --yes or at the prompt.

    Raises BadUsage where nobody can be asked, RebyteError (status 1) for a no.
    """
    if yes:
        return
    from ..output.console import one_line

    text = one_line(question)
    if not app.interactive:
        raise BadUsage(f"not without a yes: {text}", hint="--yes says it")
    if not click.confirm(text, err=True):
        raise RebyteError("nothing was changed", code="declined")


if TYPE_CHECKING:
    _Words = click.ParamType[str]
else:  # the click that runs may not let itself be subscripted
    _Words = click.ParamType


class Secret(_Words):
    """What `--secret` may be followed by: nothing, which asks, or `-`, which reads stdin."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ("-", ASK):
            self.fail(
                "a secret on the command line shows in the list of processes;"
                " give --secret alone to be asked, or --secret - to read stdin",
                param,
                ctx,
            )
        return str(value)


ASK = "ask"
secret_option = click.option(
    "--secret",
    "secret",
    type=Secret(),
    is_flag=False,
    flag_value=ASK,
    metavar="[-]",
    help="The shared secret: asked for without echo, or with `-` the first line of stdin.",
)


def read_secret(app: App, given: str | None, *, longest: int) -> str | None:
    """The secret as `--secret` wants it, or None without the option.

    Raises BadUsage for an empty or overlong one, and for one that no header could carry; the
    secret itself is never repeated.
    """
    if given is None:
        return None
    if given == "-":
        secret = app.stdin.readline(longest + 2).rstrip("\r\n")
    elif app.interactive:
        secret = click.prompt("Secret", hide_input=True, err=True)
    else:
        raise BadUsage("nobody to ask for the secret", hint="--secret - reads it from stdin")
    if not secret:
        raise BadUsage("the secret is empty")
    if len(secret) > longest:
        raise BadUsage(f"the secret has more than {longest} characters")
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise BadUsage("the secret travels in a header: visible ASCII, no blanks at its ends")
    return secret


F = TypeVar("F", bound=Any)
MOST_BYTES = 16 << 20  # far more than 100,000 characters take; a pipe may have no end


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
        hint = "A prompt has at most 100,000 characters"
        data = app.read_bytes(file, limit=MOST_BYTES, hint=hint)
        text = _decode(data, "standard input" if file == "-" else file)
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


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadUsage(
            f"{name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        ) from None


def _from_editor(app: App) -> str:
    import os
    from tempfile import TemporaryDirectory

    editor = app.environment.get("VISUAL") or app.environment.get("EDITOR")
    with TemporaryDirectory(prefix="rebyte-") as folder:
        path = os.path.join(folder, "prompt.md")
        open(path, "x").close()
        try:
            click.edit(editor=editor, filename=path)
        except click.ClickException as error:
            raise BadUsage(error.format_message()) from None
        # Read as bytes: Click's own reading stops at what is not UTF-8.
        text = _decode(app.read_bytes(path, limit=MOST_BYTES), "what the editor left")
    if not text.strip():
        raise BadUsage("the editor left no prompt")
    return text
