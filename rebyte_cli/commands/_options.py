"""Arguments, options and completions that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import BadUsage
from ..shell.values import EXECUTORS as EXECUTORS
from ._shared import completer

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


if TYPE_CHECKING:
    _Floats = click.ParamType[float]
else:  # older releases of Click, which serve as well, have no generic types
    _Floats = click.ParamType


class Seconds(_Floats):
    """A length of time in seconds: `90`, `0.5`, and `2m` or `1h` as people write them."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        number, unit = text, "s"
        for ending in sorted(_UNITS, key=len, reverse=True):
            if text.endswith(ending):
                number, unit = text[: -len(ending)], ending
                break
        try:
            seconds = float(number) * _UNITS[unit]
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            self.fail(f"{value!r} is not a number of seconds (90, 0.5, 2m, 1h)", param, ctx)
        return seconds


def split_commas(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    """`-s a,b -s c` is `[a, b, c]`; an empty slug is refused."""
    slugs = [part.strip() for text in value for part in text.split(",")]
    if any(not slug for slug in slugs):
        raise BadUsage("a skill has no name", hint="-s deep-research, or -s pdf,deep-research")
    return list(dict.fromkeys(slugs))


task_argument = click.argument("task", metavar="TASK", shell_complete=completer("tasks"))
workspace_argument = click.argument(
    "workspace", metavar="WS", shell_complete=completer("workspaces")
)
tasks_argument = click.argument(
    "tasks", metavar="TASK…", nargs=-1, required=True, shell_complete=completer("tasks")
)
skills_option = click.option(
    "-s",
    "--skill",
    "--skills",
    "skills",
    metavar="SLUG",
    multiple=True,
    callback=split_commas,
    shell_complete=completer("skills"),
    help="A skill to attach; repeat it, or separate with commas.",
)
timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Stop waiting after this long (status 124).",
)
wait_option = click.option("--wait", is_flag=True, help="Wait for the end; 10 failed, 11 canceled.")
stream_option = click.option(
    "--stream", is_flag=True, help="Print the run as it happens, then end with its status."
)
