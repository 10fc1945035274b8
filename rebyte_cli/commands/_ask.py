"""Questions to the person at the terminal: may this happen, and what is the secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..errors import BadUsage, RebyteError

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(app: App, question: str, *, yes: bool) -> None:
    """Return when the user agrees, by --yes or at the prompt.

    Raises BadUsage where nobody can be asked, RebyteError (status 1) for a no.
    """
    if yes:
        return
    from ..output.terminal import one_line

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
        secret = app.stdin.readline().rstrip("\r\n")
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
