"""The file of a journal: JSON records, one per line, and what a crash can leave of them.

The first record of a group is indented by a space, so that a reader sees where the last group
begins: only that one may have been on its way to the disk when the power failed, and nothing that
depended on it was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadUsage

FORMAT = 1
MARK = "rebyteBatch"
GROUP = b" "  # before the first record of a group
SECTOR = 512  # bytes that a disk writes whole or not at all
Record = dict[str, Any]
_FIRST = f'{{"{MARK}":'.encode()
_WORDS = {"input": "input: lines that were there, the template or a schema have changed"}


def replay(
    path: Path,
    header: Mapping[str, Any],
    each: Callable[[Record], None],
    begins_with: Callable[[Record], bool] = lambda _mark: False,
    loose: Collection[str] = (),
) -> int:
    """Give every record after the header to `each`; returns the length of the part to keep.

    Of `header`, the `loose` keys may differ.

    0 for a file that is empty or holds no more than a torn header. What a crash can leave is cut
    off: a torn end, and a last group that never reached the disk as a whole. Raises BadUsage for a
    file that is no journal, that belongs to something other than `header`, or that is damaged
    in a way that no crash explains, including a record that `each` refuses with a ValueError.
    A journal of something else that records no task counts as empty: nothing can be sent twice
    because of it.
    """
    data = path.read_bytes()
    if not _may_be_journal(data):
        raise BadUsage(f"{path} is not the journal of a batch", hint="It was not changed.")
    records, size = _whole_records(path, data)
    if not records:
        return 0
    first, mark = records[0], _last_input(records[1:])
    if mark is not None:
        # The header has the input of the first run, this one that of the last.
        first = {**first, "input": header.get("input") if begins_with(mark) else mark}
    fixed = {name: value for name, value in header.items() if name not in loose}
    other = _mismatch(path, first, fixed)
    if other is not None:
        if not _records_no_task(records[1:]):
            raise other
        return 0
    for number, record in enumerate(records[1:], 2):
        try:
            each(record)
        except ValueError:
            raise _damaged(path, number) from None
    return size


def is_blank(path: Path) -> bool:
    """Whether a journal holds no run: it was emptied, zeroed, or cut off after its header."""
    data = path.read_bytes()
    begin = data.splitlines(keepends=True)[:2]
    return _may_be_journal(data) and (len(begin) < 2 or None in map(parse, begin))


class Home(NamedTuple):
    """What a journal belongs to by its header. `has_places`: some of its lines say where they are.

    Lines that do not are at this place.
    """

    profile: str
    origin: str
    has_places: bool


def home_of(path: Path) -> Home | None:
    """What a journal belongs to; None for one that is missing, or that `replay` refuses."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    header = parse(data[: data.find(b"\n") + 1]) or {}
    profile, origin = header.get("profile"), header.get("origin")
    if not (isinstance(profile, str) and isinstance(origin, str)):
        return None
    return Home(profile, origin, b'"is":"place"' in data)


def _may_be_journal(data: bytes) -> bool:
    return data.startswith(_FIRST) or _FIRST.startswith(data.rstrip(b"\0"))


def _whole_records(path: Path, data: bytes) -> tuple[list[Record], int]:
    """The records before the first one that cannot be read, and how many bytes they take.

    BadUsage when records follow that one, unless it lost a sector in the last group: such a group
    never reached the disk as a whole.
    """
    records: list[Record] = []
    size = 0
    lines = data.splitlines(keepends=True)
    for line in lines:
        record = parse(line)
        if record is None:
            break
        records.append(record)
        size += len(line)
    later = [line for line in lines[len(records) + 1 :] if parse(line) is not None]
    if later and not (_in_last_group(records, later) and _lost_sectors(data, size)):
        raise _damaged(path, len(records) + 1)
    return records, size


def _in_last_group(before: list[Record], after: list[bytes]) -> bool:
    """Whether no group begins after a damaged place. Old versions did not mark their groups."""
    runs = [record["run"] for record in before if "run" in record and "is" not in record]
    marked = bool(runs) and isinstance(runs[-1], dict) and runs[-1].get("groups") is True
    return marked and not any(line.startswith(GROUP) or b'{"run":' in line for line in after)


def _lost_sectors(data: bytes, start: int) -> bool:
    """Whether everything that cannot be read from `start` on is whole sectors of zeros.

    The first of a group may begin in the middle of a sector, where the group before ends.
    """
    for line in data[start:].splitlines(keepends=True):
        if parse(line) is None and line.endswith(b"\n") and b"\0" not in line:
            return False
    for zeros in re.finditer(rb"\0+", data[start:]):
        begin, end = start + zeros.start(), start + zeros.end()
        is_aligned = begin % SECTOR == 0 or data[begin - 1 : begin] == b"\n"
        if end - begin < SECTOR and not (is_aligned and end % SECTOR == 0):
            return False
    return True


def _last_input(records: list[Record]) -> Record | None:
    """The mark of the input of the last run; None for a journal of a version without them."""
    for record in reversed(records):
        if "is" not in record and isinstance(run := record.get("run"), dict):
            mark = run.get("input")
            return mark if isinstance(mark, dict) else None
    return None


def _records_no_task(records: list[Record]) -> bool:
    """Whether these records prove that no task was ever created."""
    begun: set[str] = set()
    for record in records:
        line, state = str(record.get("line")), record.get("is")
        if state == "sending":
            begun.add(line)
        elif state == "unsent":
            begun.discard(line)
        elif state == "place":
            continue
        elif "run" not in record:
            return False
    return not begun


def _damaged(path: Path, number: int) -> BadUsage:
    return BadUsage(
        f"line {number} of the journal {path} is damaged",
        hint="Restore it from a backup. Without its records, lines would be sent twice.",
    )


def _mismatch(path: Path, found: Record, header: Mapping[str, Any]) -> BadUsage | None:
    """The error for a journal whose first record is not `header`; None when it is.

    Raises BadUsage for a format that cannot be read.
    """
    if found.get(MARK) != FORMAT:
        raise BadUsage(
            f"{path} has the format {found.get(MARK)!r}, which this version cannot read",
            hint="To use another one, pass --journal PATH.",
        )
    for name, value in header.items():
        if found.get(name) != value:
            which = "" if name == "input" else f": {found.get(name)}, not {value}"
            return BadUsage(
                f"the journal {path} belongs to a different {_WORDS.get(name, name)}{which}",
                hint=("Lines can only be added at the end. " if name == "input" else "")
                + "To start over, with a new task for every line, pass a new --journal.",
            )
    return None


def parse(line: bytes) -> Record | None:
    """The record of a line of the file; None for one that is torn or no record."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def encode(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as they stand in the file."""
    return b"".join(
        json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records
    )
