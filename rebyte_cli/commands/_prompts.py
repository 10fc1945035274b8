"""What a user is asked, and where the prompt of a task comes from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..app import App
from ..errors import BadUsage, Interrupted, RebyteError
from ..tasks.prompt import check_prompt

# -- Confirmations and secrets

yes_option = click.option("-y", "--yes", is_flag=True, help="Skip the confirmation.")


def confirm(app: App, question: str, *, yes: bool) -> None:
    """Return if the user agrees, by --yes or at the prompt.

    Raises BadUsage where prompts are not possible, RebyteError (status 1) for a no.
    """
    if yes:
        return
    from ..output.console import one_line

    text = one_line(question)
    if not app.interactive:
        raise BadUsage(f"confirmation required: {text}", hint="Pass --yes to confirm")
    try:
        agreed = click.confirm(text, err=True)
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise
        agreed = False
        app.console.write_err("\n")
    if not agreed:
        raise RebyteError("nothing was changed", code="declined")


def ask_hidden(text: str) -> str:
    """Prompt for a secret, which is not shown. Raises Interrupted, RebyteError at end of input."""
    try:
        return str(click.prompt(text, hide_input=True, err=True))
    except click.Abort as abort:  # Click has ended the line
        if isinstance(abort.__context__, EOFError):
            raise RebyteError("the input ended before it was answered", code="declined") from None
        raise Interrupted(130) from None


if TYPE_CHECKING:
    _Words = click.ParamType[str]
else:  # Click before 8.4 has no generic types
    _Words = click.ParamType


class Secret(_Words):
    """The value of `--secret`: none, which prompts, or `-`, which reads stdin."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in ("-", ASK):
            self.fail(
                "other users can see a secret on the command line;"
                " pass --secret alone to be prompted, or --secret - to read stdin",
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
    help="Set a shared secret: prompts for it, or with `-` reads a line from stdin.",
)


def read_secret(app: App, given: str | None, *, longest: int) -> str | None:
    """Return the secret that `--secret` asks for, or None without the option.

    Raises BadUsage for one that is empty, too long, or not fit for a header, without repeating it.
    """
    if given is None:
        return None
    if given == "-":
        secret = app.stdin.readline(longest + 2).rstrip("\r\n")
    elif app.interactive:
        secret = ask_hidden("Secret")
    else:
        raise BadUsage("cannot prompt for the secret", hint="Read it from stdin with --secret -")
    if not secret:
        raise BadUsage("the secret is empty")
    if len(secret) > longest:
        raise BadUsage(f"the secret has more than {longest} characters")
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise BadUsage(
            "the secret must be visible ASCII with no spaces around it: it is sent in a header"
        )
    return secret


F = TypeVar("F", bound=Any)
MOST_BYTES = 16 << 20  # far more than 100,000 characters take; input may have no end


def prompt_options(function: F) -> F:
    """Add `[PROMPT] [-]`, `-p/--prompt` and `--prompt-file` to a command."""
    decorators = (
        click.argument("prompt", nargs=-1, metavar="[PROMPT] [-]"),
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


def read_prompt(app: App, arguments: Sequence[str], option: str | None, file: str | None) -> str:
    """Return the prompt: from the argument, -p, --prompt-file, or the editor on a terminal.

    `-` among the arguments adds an empty line and standard input, or is the prompt alone. Raises
    BadUsage for no prompt or several, an empty or too long one, or invalid UTF-8.
    """
    words = [word for word in arguments if word != "-"]
    if len(words) > 1:
        raise BadUsage(
            f"expected one PROMPT, got {len(words)} arguments",
            hint='Quote it: "Fix the login test"; files to send go after -f',
        )
    given = [source for source in (*words, option, file) if source is not None]
    if len(given) > 1:
        raise BadUsage("pass the prompt once: as an argument, with -p, or with --prompt-file")
    with_stdin = "-" in arguments and file != "-"
    if file is not None:
        texts = [_read_file(app, file)]
    elif given:
        texts = [given[0]]
    elif with_stdin:
        texts = []
    elif app.interactive:
        texts = [_from_editor(app)]
    else:
        raise BadUsage(
            "no prompt",
            hint="Pass it as an argument, with -p TEXT, or with --prompt-file FILE (- is stdin)",
        )
    if with_stdin:
        texts.append(_read_file(app, "-"))
    elif file != "-" and _has_unread_input():
        app.note("Standard input was not read; add `-` after the prompt to send it too")
    return check_prompt("\n\n".join(texts))


def _read_file(app: App, file: str) -> str:
    data = app.read_bytes(file, limit=MOST_BYTES, hint="A prompt has at most 100,000 characters")
    return _decode(data, "standard input" if file == "-" else file)


def _has_unread_input() -> bool:
    """Whether standard input is a pipe with something in it."""
    import os
    import stat

    if sys.platform == "win32":
        return False
    import fcntl
    import termios

    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            return False
        return any(fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, bytes(4)))
    except (AttributeError, OSError, ValueError):  # closed; not a file
        return False


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadUsage(
            f"{name}: invalid UTF-8 at byte {error.start} (0x{data[error.start]:02x})"
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
        # Read as bytes: Click's own reading fails on invalid UTF-8.
        text = _decode(app.read_bytes(path, limit=MOST_BYTES), "the prompt from the editor")
    if not text.strip():
        raise BadUsage("the prompt from the editor is empty")
    return text
