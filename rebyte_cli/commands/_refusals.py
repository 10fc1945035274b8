"""Click's messages about a bad command line, in the words of the other errors.

Imported only after a command line was refused, so that it costs nothing at start.
"""

from __future__ import annotations

import re

import click

from ..errors import did_you_mean


def message(error: click.ClickException) -> str:
    """What is wrong, on one line that begins like every other error."""
    if isinstance(error, click.MissingParameter):
        kind = getattr(error.param, "param_type_name", "parameter")
        return f"missing {kind}: {_names(error)}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_names(error)}: {_reason(error.message)}"
    text = error.format_message().rstrip(".")
    for pattern, plain in (
        (r"Got unexpected extra arguments? \((.*)\)", r"unexpected argument: \1"),
        (r"Option '(\S+)' requires an argument", r"\1 requires a value"),
        (r"Option '(\S+)' requires (\d+) arguments", r"\1 requires \2 values"),
        (r"Option '(\S+)' does not take a value", r"\1 takes no value"),
    ):
        text = re.sub(pattern, plain, text)
    return text[:1].lower() + text[1:]


def hint(error: click.ClickException) -> str | None:
    """What to type instead: `-` for a pipe full of tasks, or the nearest choice; or None."""
    if isinstance(error, click.UsageError) and error.message.startswith("missing argument: TASK…"):
        return _hint_of_stdin()
    if isinstance(error, click.MissingParameter) and error.param and error.param.name == "tasks":
        return _hint_of_stdin()
    if not isinstance(error, click.BadParameter) or error.param is None:
        return None
    value = re.match(r"'(.*)' is not one of ", error.message)
    if value is None or not isinstance(error.param.type, click.Choice):
        return None
    return did_you_mean(value[1], map(str, error.param.type.choices))


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


def _reason(text: str) -> str:
    text = text.strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    text = re.sub(r" is not a valid (integer|float)( range)?$", " is not a number", text)
    text = re.sub(r"(\S+) is not in the range x>=(\S+)$", r"\1 is less than \2", text)
    text = re.sub(r"(\S+) is not in the range x>(\S+)$", r"\1 is not greater than \2", text)
    text = re.sub(
        r"(\S+) is not in the range (\S+?)<=x<=(\S+)$", r"\1 is not between \2 and \3", text
    )
    head, found, choices = text.partition(" is not one of ")
    return f"{head}{found}{choices.replace(chr(39), '')}" if found else text
