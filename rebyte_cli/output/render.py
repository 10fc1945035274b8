"""Prints the value that a command returned."""

from __future__ import annotations

import time
from codecs import iterdecode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, TypeVar

from ..errors import BadUsage, Interrupted, RebyteError, RowOrError, worst
from .console import Console, clean
from .markup import Rendered, json_highlighter
from .records import (
    Document,
    Raw,
    RecordKind,
    RecordList,
    Records,
    Text,
    Value,
    check_fields,
    unknown_field,
)

Mappings = Iterator[Mapping[str, Any]]
FieldNames = tuple[str, ...] | None
T = TypeVar("T")


def show(
    value: Value,
    *,
    console: Console,
    format: str,  # noqa: A002 - the option's own name
    fields: FieldNames = None,
    errors_as_json: bool = False,
    prepare_error: Callable[[RebyteError], RebyteError] = lambda error: error,
    pager: Callable[[str], AbstractContextManager[None]] = lambda _variable: nullcontext(),
    now: Callable[[], float] = time.time,
) -> int:
    """Print what a command returned, as it arrives; returns the exit status.

    `format` is one of `config.FORMATS` (the App has decided what `auto` means) or `text`;
    `fields` is what `--fields` named, `errors_as_json` says how rows that are errors are printed
    on stderr, `prepare_error` makes of each what is printed, `pager` sends a block's output through
    the pager that a variable names, and `now` is the time in seconds that
    "3m ago" counts from.
    Raises BadUsage for a field or an id that the value does not have, ReaderGone and RebyteError
    if stdout cannot be written, and whatever the rows raise. What was printed before stays, and an
    incomplete JSON list is left open so that no reader takes it for complete.
    """
    fields = fields or None
    errors = _Errors(console, errors_as_json, prepare_error)
    if isinstance(value, Records | RecordList):
        check_fields(value.kind, fields, format)
        rows = _plain(value.kind, value.rows, errors, fields or ())
        if value.kind.formerly and (fields or format in ("json", "jsonl")):
            rows = _with_former_names(value.kind, rows)
        prepare = json_highlighter(console) if format in ("json", "jsonl") else str
        whole = isinstance(value, RecordList) and (
            format == "json" or (format in ("table", "text") and not value.draw)
        )
        count = 0

        def counted() -> Mappings:
            nonlocal count
            for row in rows:
                count += 1
                yield row

        for chunk in _chunks(value, counted(), format, fields, console, now):
            console.write_out(prepare(chunk), flush=not whole)
        # JSON has the `total` in its envelope, for a program that looks.
        if isinstance(value, RecordList) and value.footer and (format != "json" or console.err_tty):
            footer = value.footer(count) if count else None
            if footer is not None:
                from .messages import note

                console.flush_out()
                note(console, footer)
    elif isinstance(value, Document):
        document = _encoder(console, pretty=format != "jsonl")(_document(value.value, fields))
        console.write_out(json_highlighter(console)(document) + "\n")
    elif fields is not None:
        raise BadUsage("--fields: this output has no fields")
    elif isinstance(value, Text):
        chunks = errors.out_of((value.chunks,) if isinstance(value.chunks, str) else value.chunks)
        text = _text(chunks, console if value.prose and console.out_tty else None)
        # A pager hides the spinner that is shown until then.
        first = next(text, "")
        with pager(value.pager) if value.pager and first else nullcontext():
            for chunk in chain((first,), text):
                console.write_out(chunk, flush=True)
    elif isinstance(value, Raw):
        data = errors.out_of((value.data,) if isinstance(value.data, bytes) else value.data)
        decoded = _text(iterdecode(data, "utf-8", "backslashreplace"))
        for piece in decoded if console.out_tty else data:
            console.write_out(piece, flush=True)
    console.flush_out()
    return worst(errors.statuses)


class _Errors:
    """The errors among what is printed: each is shown on stderr in its place, a hint only once."""

    def __init__(
        self, console: Console, as_json: bool, prepare: Callable[[RebyteError], RebyteError]
    ) -> None:
        self.statuses: list[int] = []
        self._console = console
        self._as_json = as_json
        self._prepare = prepare
        self._hints: set[str | None] = set()

    def show(self, error: RebyteError) -> None:
        """Print one."""
        from .messages import show_error

        error = self._prepare(error)
        repeats = error.hint in self._hints and not self._as_json
        shown = error.copy_with(hint=None) if repeats else error
        show_error(self._console, shown, as_json=self._as_json)
        self._hints.add(error.hint)
        self.statuses.append(error.exit_status)

    def out_of(self, values: Iterable[T | RebyteError]) -> Iterator[T]:
        """The values that are no errors."""
        for value in values:
            if isinstance(value, RebyteError):
                self.show(value)
            else:
                yield value


def _plain(
    kind: RecordKind, rows: Iterable[RowOrError], errors: _Errors, fields: Collection[str]
) -> Mappings:
    """The records without their secrets, and with `fields`; errors are printed in their place."""
    for row in rows:
        record = row.record if isinstance(row, RebyteError) else row
        if record is not None:
            if kind.withheld:
                record = {key: record[key] for key in record if key not in kind.withheld}
            yield {**record, **kind.derived(record, fields)} if fields else record
        if isinstance(row, RebyteError):
            errors.show(row)  # the record was printed when the reader came back for more


def _with_former_names(kind: RecordKind, rows: Mappings) -> Mappings:
    for row in rows:
        old = {name: row[new] for name, new in kind.formerly.items() if new in row}
        yield {**row, **old}


def _chunks(
    value: Records | RecordList,
    rows: Mappings,
    form: str,
    fields: FieldNames,
    console: Console,
    now: Callable[[], float],
) -> Iterator[str]:
    kind = value.kind
    if form in ("table", "text"):
        from .table import Style, record

        if isinstance(value, RecordList) and value.draw and not fields:
            style, draw = Style.of(console, now()), value.draw
            return (draw(row, style) for row in rows)
        if isinstance(value, RecordList):
            return _listing_table(value, rows, fields, console, now)
        return (
            "\n" * bool(at) + record(kind, row, fields, Style.of(console, now()))
            for at, row in enumerate(rows)
        )
    if form == "json" and isinstance(value, RecordList):
        return _json_listing(value, rows, fields, console)
    from .formats import id_line, pick

    if form in ("json", "jsonl"):
        encode = _encoder(console, pretty=form == "json")
        return (encode(pick(row, fields)) + "\n" for row in rows)
    if form == "id":
        return (id_line(row.get(kind.id)) for row in rows)
    return _lines(kind, rows, form, fields)


def _encoder(console: Console, *, pretty: bool) -> Callable[[Any], str]:
    from .formats import encode

    ascii_only = not console.unicode
    return lambda value: encode(value, pretty=pretty, ascii_only=ascii_only)


def _json_listing(
    value: RecordList, rows: Mappings, fields: FieldNames, console: Console
) -> Iterator[str]:
    """One indented document, without holding all its rows at once."""
    from .formats import pick

    encode = _encoder(console, pretty=True)
    count = 0
    for row in rows:
        before = ",\n    " if count else '{\n  "data": [\n    '
        yield before + encode(pick(row, fields)).replace("\n", "\n    ")
        count += 1
    envelope = value.envelope(count) if callable(value.envelope) else value.envelope
    start = "\n  ]" if count else '{\n  "data": []'
    # The rest is that of a document that starts with `data`.
    yield start + encode({"data": 0, **(envelope or {})}).removeprefix('{\n  "data": 0') + "\n"


def _lines(kind: RecordKind, rows: Mappings, form: str, fields: FieldNames) -> Iterator[str]:
    from .formats import csv_line, tsv_line

    line = csv_line if form == "csv" else tsv_line
    names: tuple[str, ...] | None = None
    for row in rows:
        if status := kind.status(row):
            row = {**row, "status": status}
        if names is None:
            names = fields or _flat(kind, row)
            yield line(names)
        yield line(row.get(name) for name in names)
    if names is None:
        yield line(fields or _flat(kind, {}))


def _flat(kind: RecordKind, first: Mapping[str, Any]) -> tuple[str, ...]:
    # The status says it, and the next row may have none.
    shown = first.keys() - {"question", "queue", "usage"}
    return tuple(name for name in kind.types if name not in kind.on_request or name in shown)


def _listing_table(
    value: RecordList,
    rows: Mappings,
    fields: FieldNames,
    console: Console,
    now: Callable[[], float],
) -> Iterator[str]:
    from .messages import note
    from .table import Style, listing

    kind, found = value.kind, list[Mapping[str, Any]]()
    look = Style.of(console, now())
    problem: RebyteError | Interrupted | None = None
    try:
        found.extend(rows)
    except (RebyteError, Interrupted) as error:
        problem = error
    # Rows that did arrive are shown, unless an interrupt says that a list is not wanted any more.
    if found and not (isinstance(problem, Interrupted) and value.below is None):
        if value.shorten is not None and console.out_tty:
            ids = (row.get(kind.id) for row in found)
            short = value.shorten(task_id for task_id in ids if isinstance(task_id, str))
            found = [{**row, kind.id: short.get(str(row.get(kind.id)))} for row in found]
        yield listing(kind, found, fields or value.columns or kind.columns, look)
    elif problem is None and not value.below:
        note(console, f"no {kind.plural}")
    console.flush_out()
    for line in value.below or ():
        note(console, line)
    if problem is not None:
        raise problem


def _text(chunks: Iterable[str], terminal: Console | None = None) -> Iterator[str]:
    """Clean text that ends with a newline, even if it is cut off; CRLF becomes LF.

    It is wrapped to the width of `terminal`. Text that is `Rendered` stays as it is.
    """
    from .table import wrap_lines

    held = last = ""
    try:
        for chunk in chunks:
            if isinstance(chunk, Rendered):
                last = chunk[-1:] or last
                yield chunk
                continue
            text = held + chunk
            # A CR at the end may be half of a CRLF.
            held = "\r" if text.endswith("\r") else ""
            text = clean(text.removesuffix(held).replace("\r\n", "\n"))
            if text:
                last = text[-1]
                yield text if terminal is None else wrap_lines(text, terminal.size(on_out=True)[0])
    except (RebyteError, Interrupted, KeyboardInterrupt):
        if last not in ("", "\n"):
            yield "\n"
        raise
    if held:
        last = held
        yield clean(held)
    if last not in ("", "\n"):
        yield "\n"


def _document(value: Any, fields: FieldNames) -> Any:
    if fields is None:
        return value
    if not isinstance(value, Mapping):
        raise BadUsage("--fields: this document has no fields")
    for field in fields:
        if field not in value:
            raise unknown_field(field, map(str, value))
    return {field: value[field] for field in fields}
