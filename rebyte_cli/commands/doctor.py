"""Check what rebyte would use here, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator

from ..app import App
from ..errors import RebyteError, RowOrError
from ..output.records import CHECK, RecordList
from ._base import choose_format, define


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
    from ..output.checklist import draw

    choose_format(app)
    return RecordList(CHECK, _found(app), draw=draw)


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
