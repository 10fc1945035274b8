"""The report of a batch: what ran, how it ended and how long it took, as HTML or Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

from ..config.atomic import create_beside, replace
from ..errors import BadUsage, RebyteError
from ..redaction import redact_keys
from . import html_report, markdown_report
from .answers import LineTexts
from .state import counts, tally
from .timeline import Row, Timeline

ENDINGS = (".html", ".htm", ".md")


def check(path: str) -> None:
    """Raise BadUsage unless a report can be written there later."""
    if not path.lower().endswith(ENDINGS):
        raise BadUsage(f"--report {path}: the name must end with .html or .md")
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise BadUsage(f"--report {path}: cannot be written there")


def write(
    path: str,
    title: str,
    rows: Sequence[Row],
    texts: Iterable[LineTexts] | None = None,
    *,
    now: datetime | None = None,
) -> None:
    """Write the report of `rows` (kind RESULT), as HTML or Markdown by the name's ending.

    `texts` are those of each row, used one after another. The file appears whole or not at all.
    Raises RebyteError if it cannot be written.
    """
    timeline = Timeline(rows, now or datetime.now(UTC))
    render = markdown_report.render if path.lower().endswith(".md") else html_report.render
    target = Path(os.path.abspath(path))  # a link there is replaced, not written through
    temporary = None
    try:
        handle, temporary = create_beside(target)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            parts = render(
                title, counts(tally(rows)), rows, texts or repeat(LineTexts("", None)), timeline
            )
            file.writelines(map(redact_keys, parts))  # reports are passed around
        replace(temporary, target)
        temporary = None
    except OSError as error:
        raise RebyteError(f"cannot write the report {path}: {error.strerror}") from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
