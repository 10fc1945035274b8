"""Check what rebyte would use here, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..app import App
from ..errors import RebyteError, RowOrError
from ..output.console import one_line
from ..output.records import CHECK, RecordList
from ..output.table import GREEN, RED, YELLOW, Style, wrap
from ._base import choose_format, define

# The sign of each status, and the one for an encoding without it.
_SIGNS = {"ok": ("✓", "ok", GREEN), "warning": ("!", "!", YELLOW), "problem": ("✗", "x", RED)}
_NAME_WIDTH = 11  # of the longest name of a check, and a gap


@define("doctor", kind=CHECK, statuses=())
def command(app: App) -> RecordList:
    """Check versions, profile, key, API, proxy, TLS, keyring, editor, git and local agents.

    Each line says what a command would use, and whether it works. A warning or a problem is
    followed by what to do about it. The checks run side by side, each for a few seconds at most.
    Nothing is changed, and the key is never shown, so the report can be attached to an issue.

    The status is 1 if something doesn't work; with warnings alone, it is 0.

    Examples:

      rebyte doctor
      rebyte -P work doctor
      rebyte doctor -o json | jq -r '.data[] | select(.status != "ok") | .name'
    """
    choose_format(app)
    return RecordList(CHECK, _found(app), draw=_draw)


def _found(app: App) -> Iterator[RowOrError]:
    from ..doctor.check_runner import run_checks
    from ..doctor.checks import Examination
    from ..manual.facts import VARIABLES

    counts = {"ok": 0, "warning": 0, "problem": 0}
    for name, finding in run_checks(Examination(app, VARIABLES).checks()):
        counts[finding.status] += 1
        hint = finding.hint and app.typed(finding.hint)
        yield finding._replace(hint=hint).record(name)
    warnings = _count(counts["warning"], "warning")
    if counts["problem"]:
        found = f"{_count(counts['problem'], 'problem')} found, {warnings}"
        yield RebyteError(found, code="problems_found")
    else:
        app.note(f"No problems found, {warnings}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"


def _draw(record: Mapping[str, Any], style: Style) -> str:
    """A record of kind CHECK: its sign, name and message, and below it what to do."""
    sign, plain, color = _SIGNS[str(record["status"])]
    if style.ellipsis != "…":  # an encoding that does not have it
        sign = plain
    start = " " * (len(sign) + 1 + _NAME_WIDTH)
    room = max((style.width or 10_000) - len(start), 20)
    lines = list(wrap(one_line(str(record["message"])), room))
    if record["status"] != "ok":
        for line in str(record["hint"] or "").splitlines():
            lines += [f"  {piece}" for piece in wrap(one_line(line), room - 2)]
    head = f"{style.paint(color, sign)} {record['name']:<{_NAME_WIDTH}}{lines[0]}"
    return "\n".join([head, *(start + line for line in lines[1:])]) + "\n"
