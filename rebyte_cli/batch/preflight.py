"""Checks of the files of a batch, before any of them is read or written."""

from __future__ import annotations

import os
import re

from ..errors import BadUsage
from .input import InputSource, journals_of


def refuse_other_shards(source: InputSource) -> None:
    """BadUsage when the file was begun with another number of shards: lines would run twice.

    Also for standard input without a journal, before any of it is read.
    """
    path = source.journal_path
    if source.journal is not None:
        return
    file, of = source.beside, source.shard[1]
    own = r"" if of == 1 else rf"\.\d+-of-{of}"
    own_part = re.compile(re.escape(os.path.basename(file)) + own + r"\.journal")
    for other in journals_of(file):
        if not own_part.fullmatch(other):
            raise BadUsage(
                f"{source.file} was started with another --shard: {path.with_name(other)} exists",
                hint="Its lines would get a second task. To start over, pass a new --journal.",
            )


def check_outputs(source: InputSource, *, results: str | None, report: str | None) -> None:
    """BadUsage when results or a report cannot be written, or would replace what is read."""
    if report is not None:
        from .report import check

        check(report)
    if results is not None and (os.path.isdir(results) or not results):
        raise BadUsage(f"--results {results}: not a file")
    inputs = [path for path in (source.file, source.template, source.journal) if path]
    if source.journal is not None or source.file != "-":
        inputs.append(str(source.journal_path))
    for option, path in (("--report", report), ("--results", results)):
        for other in filter(os.path.exists, inputs if path else ()):
            if path and os.path.exists(path) and os.path.samefile(other, path):
                raise BadUsage(f"{option} {path}: would overwrite {other}")
    if report and results and os.path.realpath(report) == os.path.realpath(results):
        raise BadUsage("--report and --results name the same file")
