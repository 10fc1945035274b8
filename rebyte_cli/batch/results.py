"""The results of a batch: the row of each line, their counts, and the file of `--results`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from ..api.token_usage import TokenUsage, described
from ..errors import RANK, BadUsage, RebyteError, RowOrError
from ..once.judge import any_of
from ..once.server_clock import without_tags
from ..tasks.budget import Priced
from .input import InputLine, InputSource
from .state import LineState

Tally = Counter[tuple[str, str]]  # of statuses with reasons, which are empty for what went well
MOST_REASONS = 3  # below the counts


class LineProblem(RebyteError):
    """A line that did not end well; it carries its row."""

    def __init__(self, row: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        key, number = str(row["key"]), row["line"]
        name = f"line {number}" if key == str(number) else f"line {number} ({key})"
        what = f"{name}: {error['message']}"
        super().__init__(what, code=str(error["code"]), hint=error.get("hint"))
        # A line can be refused for what is bad usage elsewhere; the batch itself was not.
        self.exit_status = int(error["exit"]) if error["exit"] in RANK else 1
        self.status_code = error.get("status")
        self.row = dict(row)
        self._shown = False

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The row, unless it was written elsewhere."""
        return None if self._shown else self.row

    def with_row(self, row: Mapping[str, Any]) -> LineProblem:
        """The same error with another row."""
        copy = self.copy_with()
        copy.row = dict(row)
        return copy

    def without_record(self) -> LineProblem:
        """The same error for a row that was written elsewhere."""
        copy = self.copy_with()
        copy._shown = True
        return copy


def row_of(
    line: InputLine,
    entry: LineState,
    priced: Priced = lambda usage, _model: usage,
    *,
    is_pool: bool = False,
) -> Mapping[str, Any] | LineProblem:
    """What is printed for a line: its row, inside an error when it did not end well.

    With `is_pool`, it has the place of the line.
    """
    error = _unknown(line, entry) if entry.is_lost else entry.error
    row = {
        "key": line.key,
        "line": line.number,
        "id": entry.id,
        "workspaceId": entry.workspace,
        "url": entry.url,
        "status": entry.status,
        "error": error and {name: error.get(name) for name in ("code", "message", "status")},
        "startedAt": entry.started or (entry.sent and without_tags(entry.sent)),
        "finishedAt": entry.finished,
        "title": line.title,
        "reason": error and error.get("reason"),
        **({"place": entry.place} if is_pool else {}),
        **entry.findings,
    }
    if entry.state == "limited":
        row["resumesAt"] = entry.resumes_at
    used = entry.used.get(entry.id or "")
    if used is not None:
        row["usage"] = priced(*used).document
    return row if error is None else LineProblem(row, error)


def name_of(row: Mapping[str, Any]) -> str:
    """What people know a row by: how its prompt begins, behind its key if the input gave it one."""
    key, title = str(row["key"]), str(row.get("title") or "")
    if not title:
        return key
    return title if key == str(row["line"]) else f"{key}: {title}"


def tally(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """How often each end of a line occurs."""
    return Counter((str(row.get("status")), reason_of(row)) for row in rows)


def counts(ends: Tally) -> str:
    """`120 lines: 118 completed, 2 failed`, the most frequent first."""
    found = Counter[str]()
    for (status, _), count in ends.items():
        found[status] += count
    lines = "1 line" if found.total() == 1 else f"{found.total()} lines"
    words = ", ".join(f"{count} {status}" for status, count in found.most_common())
    return f"{lines}: {words}" if words else "no lines"


def reason_of(row: Mapping[str, Any]) -> str:
    """Why a line did not end well, without the id of its task; an empty string if it did."""
    return str(row.get("reason") or (row.get("error") or {}).get("message") or "")


def used_by(row: Mapping[str, Any]) -> str:
    """What the task of a row used of its model, for people; empty if that is not known."""
    usage = TokenUsage.of(row.get("usage"))
    return described(usage) if usage else ""


def shared_reasons(ends: Tally) -> Iterator[str]:
    """What several lines have in common: `98 lines failed: REASON`, the most frequent first."""
    found = Counter({end: count for end, count in ends.items() if end[1]})
    for (status, reason), count in found.most_common(MOST_REASONS):
        if count > 1:
            yield f"{count} lines {status}: {reason}"


def _unknown(line: InputLine, entry: LineState) -> dict[str, Any]:
    could_be = f"; it could be {any_of(entry.candidates)}" if entry.candidates else ""
    return {
        "code": "outcome_unknown",
        "message": "its create was sent and no answer came back"
        f"{could_be}; the next run searches again, or settle it with --resolve {line.number}=ID "
        f"or {line.number}=none",
        "status": None,
        "exit": 6,
    }


class ResultsFile:
    """The file of `--results`: a row per line as JSON Lines, written as the lines end.

    It is opened, and what an earlier run wrote replaced, once the journal is held: a second run
    of the same batch ends before it can harm the results of the first.
    """

    def __init__(self, path: str, fields: tuple[str, ...] | None) -> None:
        """BadUsage when the file cannot be written."""
        self._path = path
        self._fields = fields
        self._failed: OSError | None = None
        try:
            self._file: IO[str] = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 -- closed by `take`
        except OSError as error:
            why = f"--results {path}: cannot be written: {error.strerror}"
            raise BadUsage(why) from None

    def take(self, rows: Iterable[RowOrError]) -> Iterator[RowOrError]:
        """Write the rows, and yield only the errors: their exit status counts, as ever."""
        try:
            for row in rows:
                record = row.record if isinstance(row, RebyteError) else row
                if record is not None:
                    self._write(record)
                if isinstance(row, LineProblem):
                    yield row.without_record()
                elif isinstance(row, RebyteError):
                    yield row
        finally:
            try:  # writes what is left in the buffer
                self._file.close()
            except OSError as error:
                self._failed = error
        if self._failed is not None:
            yield RebyteError(
                f"cannot write {self._path}: {self._failed.strerror}",
                hint="Run the same command again; it writes the results of every line.",
            )

    def _write(self, record: Mapping[str, Any]) -> None:
        from ..output.formats import encode, pick

        if self._failed is not None:
            return
        try:
            self._file.write(encode(pick(record, self._fields)) + "\n")
            self._file.flush()
        except OSError as error:  # the tasks run on, and the journal has them
            self._failed = error


def check_outputs(source: InputSource, *, results: str | None, report: str | None) -> None:
    """BadUsage when results or a report cannot be written, or would replace what is read."""
    if report is not None:
        check_report(report)
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


def check_report(path: str, *, in_html: bool = True) -> None:
    """Raise BadUsage unless a report can be written there later, in Markdown or `in_html`."""
    if not path.lower().endswith((".html", ".htm", ".md") if in_html else ".md"):
        endings = ".html or .md" if in_html else ".md"
        raise BadUsage(f"--report {path}: the name must end with {endings}")
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise BadUsage(f"--report {path}: cannot be written there")
