"""The file of `--results`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from ..errors import BadUsage, RebyteError
from .state import LineProblem

if TYPE_CHECKING:
    from ..output.records import RowOrError


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
