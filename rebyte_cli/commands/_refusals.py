"""Click's messages about a bad command line, in the words of the other errors.

Imported only after a command line was refused, so that it costs nothing at start.
"""

from __future__ import annotations

import click

from ._options import NotAChoice, NoTasks


def message(error: click.ClickException) -> str:
    """What is wrong, on one line that begins like every other error."""
    if isinstance(error, click.MissingParameter):
        kind = getattr(error.param, "param_type_name", "parameter")
        return f"missing {kind}: {_names(error)}"
    text = error.message.strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_names(error)}: {text}"
    return text


def hint(error: click.ClickException) -> str | None:
    """What to type instead: `-` for a pipe full of tasks, or the nearest choice; or None."""
    if isinstance(error, NoTasks):
        return _hint_of_stdin()
    if isinstance(error, click.MissingParameter) and error.param and error.param.name == "tasks":
        return _hint_of_stdin()
    return error.near if isinstance(error, NotAChoice) else None


def _hint_of_stdin() -> str | None:
    from ._prompts import has_unread_input

    return "Pass `-` to read tasks from standard input" if has_unread_input() else None


def _names(error: click.BadParameter) -> str:
    """The parameter as it is typed: `--limit`, `-o/--output`, `TASK…`."""
    param = error.param
    if isinstance(param, click.Argument) and isinstance(param.type, click.Choice):
        return str(param.name).upper()  # and not its choices, which follow
    shown = error.param_hint or (param and param.get_error_hint(error.ctx))
    words = [shown] if isinstance(shown, str) else list(shown or ())
    names = " ".join(words).replace("'", "").replace(" / ", "/")
    # An argument that may be left out is shown in brackets, with the `-` that may follow it.
    return names.removesuffix(" [-]").strip("[]") if isinstance(param, click.Argument) else names
