"""The form of a patch in git's format, and its headers: what it says of each file.

The summary of git itself prints names with line breaks as they are, and is silent about modes. So
they are read here; and since git reads a header that says a thing twice, or in other words, in its
own way, a patch whose headers do not have exactly the form that git writes is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import RebyteError
from .git_apply import blocks

MOST_FILES = 250_000  # of which Python keeps a kilobyte each
LONGEST_LINE = 40_000  # of a header: two paths, each byte in four characters
LONGEST_SHOWN = 200
MOST_FOLDERS = 250  # above one file: Python goes down in folders by recursion
_PART = re.compile(rb"^diff --git ", re.MULTILINE)
# git takes what is behind an empty line for the text around a patch, or for one in another format.
_HEADER = re.compile(
    rb"""
    diff\ --git\ (?P<both>TEXT)\n (?!GIT\ |END)
    (?P<modes> old\ mode\ (?P<before>MODE)\nnew\ mode\ (?P<after>MODE)\n
             | new\ file\ mode\ (?P<new>MODE)\n
             | deleted\ file\ mode\ (?P<gone>MODE)\n )?
    (?: (?:dis)?similarity\ index\ \d+%\n )?
    (?: (?P<move>rename|copy)\ from\ (?P<source>TEXT)\n(?P=move)\ to\ (?P<target>TEXT)\n )?
    (?: index\ (?P<old_blob>ID)\.\.(?P<blob>ID)(?(modes)|(?:\ (?P<same>MODE))?)\n )?
    (?: (?P<lines>---)\ (?(new)/dev/null|(?P<minus>TEXT?)\t?)\n
        \+\+\+\ (?(gone)/dev/null|(?P<plus>TEXT?)\t?)\n(?=@@\ -)
      | (?P<untold>Binary\ files)\ TEXT\ differ\n(?=END)
      | (?=(?P<binary>GIT\ binary\ patch)\n|END) )
    """.replace(b"TEXT", rb"[^\0\n]{1,%d}" % LONGEST_LINE)
    .replace(b"MODE", b"(?:100644|100755|120000|160000)")
    .replace(b"ID", b"[0-9a-f]{1,64}")
    .replace(b"END", rb"(?:\n|--\ \n|diff\ --git\ |\Z)"),
    re.VERBOSE,
)
LINES, BINARY, UNTOLD = b"---", b"GIT binary patch", b"Binary files"
_NO_NAMES = (b"", b".", b"..", b".git")
HUNK = re.compile(
    rb"^@@ -(\d{1,18})(?:,(\d{1,18}))? \+\d{1,18}(?:,(\d{1,18}))? @@.*\n", re.MULTILINE
)
# What `format-patch` writes behind the last part of a commit, and what begins the next one.
_AFTER = re.compile(
    rb"(?:\n|(?:base-commit|prerequisite-patch-id): [0-9a-f]+\n)*+(?:-- \n\w.*(?:\n++|\Z))?"
)
_COMMIT = re.compile(rb"(?:From|commit) [0-9a-f]{7,64}\b|# HG changeset patch\n")
_LIKE_PARTS = re.compile(
    rb"^(?:@@|diff[\ \t]+-|GIT\ binary|Submodule\ .*[0-9a-f]{7}\.\.)", re.MULTILINE | re.VERBOSE
)
_CONTEXT = re.compile(rb"^[ \n]", re.MULTILINE)
# In a hunk, what is no part of the new lines, such as the last line break where it says so.
_NOT_MADE = re.compile(rb"^-.*\n(?:\\.*\n)?|\n\\.*\n|^[ +]", re.MULTILINE)
# A name as git quotes it: any other character stands for itself.
_QUOTED = re.compile(rb'"((?:[^"\\]|\\(?:[abtnvfr"\\]|0[0-3][1-7]|0[1-3]0|177|[23][0-7]{2}))*)"')
_ESCAPES = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))


class PatchedFile(NamedTuple):
    """The part of a patch about one file: names, modes and the ids of its content, as written.

    A name is empty where there is no such file, a mode and an id where the patch does not say it. A
    copy is a new file; what it is `copied` from stays. The new `content` is told by LINES or BINARY
    data, UNTOLD, or the old one if this is empty.
    """

    old: bytes
    new: bytes
    old_mode: str
    mode: str
    blob: str
    old_blob: str = ""
    copied: bytes = b""
    content: bytes = b""

    @property
    def names(self) -> set[bytes]:
        """Those of the file before and after."""
        return {self.old, self.new} - {b""}


def check_form(patch: bytes) -> None:
    """Raise RebyteError for a patch that git does not write, and so could read differently.

    For its headers as `sections` does. Content has to follow a header, a hunk also another one. It
    has to end where it says, and to say where it belongs. And for a name that no file in a
    repository has, one below more than `MOST_FOLDERS` folders, or more than `MOST_FILES` files; and
    if git would not make what the parts say one after the other, or they do not tell what that is.
    """
    end, files = 0, list[PatchedFile]()
    for header in _headers(patch):
        if len(files) == MOST_FILES:
            raise RebyteError(f"the patch changes more than {MOST_FILES:,} files", code="too_large")
        _check_text(patch, end, header.start())
        files.append(_section(header))
        _check_names(files[-1])
        end = header.end()
        if files[-1].content == LINES:
            end = _hunks_end(patch, end)
        elif files[-1].content == BINARY:
            end = blocks(patch, end + len(BINARY) + 1)[-1].end()
    _check_text(patch, end, len(patch))
    _check_order(files)
    _check_cycles(files)


def _check_text(patch: bytes, start: int, end: int) -> None:
    """Refuse text around parts that git passes over, but that reads like more of the patch."""
    if start:
        after = _AFTER.match(patch, start)
        at = min(after.end() if after else start, end)
        # The lines of a binary file may have ended in the next part.
        if start > end or (at < end and not _COMMIT.match(patch, at, end)):
            raise _odd(patch, at)
    if line := _LIKE_PARTS.search(patch, start, end):
        raise _odd(patch, line.start())


def _hunks_end(patch: bytes, at: int) -> int:
    while hunk := HUNK.match(patch, at):
        at = _hunk_end(patch, hunk)
        # git takes a hunk without context for one at the end, wherever its numbers put it.
        is_placed = int(hunk[1]) <= (int(hunk[2] or 1) > 0)
        if not is_placed and not _CONTEXT.search(patch, hunk.end(), at):
            message = f"no line around a change says where it belongs: {_shown(hunk[0].strip())}"
            raise RebyteError(message, code="bad_patch")
    return at


def _hunk_end(patch: bytes, hunk: re.Match[bytes]) -> int:
    at = hunk.end()
    old, new = counts(hunk)
    while old or new or patch.startswith(b"\\ ", at):
        kind, end = patch[at : at + 1], patch.find(b"\n", at)
        old -= kind in (b" ", b"\n", b"-")
        new -= kind in (b" ", b"\n", b"+")
        if kind not in (b" ", b"\n", b"-", b"+", b"\\") or min(old, new) < 0 or end < 0:
            raise _odd(patch, at)
        at = end + 1
    return at


def counts(hunk: re.Match[bytes]) -> tuple[int, int]:
    """How many lines a hunk has of the old file, and of the new one."""
    return int(hunk[2] or 1), int(hunk[3] or 1)


def made_lines(part: bytes) -> Iterator[bytes]:
    """The lines that each hunk makes, with those around them, in a patch of the right form."""
    for hunk in HUNK.finditer(part):
        yield _NOT_MADE.sub(b"", part[hunk.end() : _hunk_end(part, hunk)])


def sections(patch: bytes) -> Iterator[PatchedFile]:
    """The files of a patch in git's format, in its order; none of those in other formats.

    Raises RebyteError for a header that does not have the form which git writes, or whose lines do
    not name the same two files.
    """
    return map(_section, _headers(patch))


def names_in(patch: bytes) -> set[bytes]:
    """The names of all files of a patch, before and after. Raises RebyteError as `sections`."""
    return {name for each in sections(patch) for name in each.names}


def parts(patch: bytes) -> Iterator[tuple[bytes, PatchedFile]]:
    """A patch in git's format, file by file: each part, and what it says; as `sections`."""
    starts = [found.start() for found in _PART.finditer(patch)]
    places = itertools.pairwise([*starts, len(patch)])
    for (start, end), section in zip(places, sections(patch), strict=True):
        yield patch[start:end], section


def _headers(patch: bytes) -> Iterator[re.Match[bytes]]:
    for part in _PART.finditer(patch):
        header = _HEADER.match(patch, part.start())
        if not header:
            raise _odd(patch, part.start())
        yield header


def _section(header: re.Match[bytes]) -> PatchedFile:
    said = header.groupdict(b"")
    both, minus, plus, source, target = map(
        said.__getitem__, ("both", "minus", "plus", "source", "target")
    )
    is_move = bool(source)
    new = _unquoted(target) if is_move else _side(plus or minus) or _name_of_both(both)
    old = _unquoted(source) if is_move else _side(minus) or new
    ends = (source.lstrip(b'"') + b" ", target.lstrip(b'"'))
    agree = (
        both.startswith(minus and minus + b" ") and both.endswith(plus and b" " + plus),
        b"/" + ends[0] in both and both.endswith(b"/" + ends[1]) if is_move else old == new,
    )
    if not all(agree):
        raise _odd(header.string, header.start())
    copied = old if said["move"] == b"copy" else b""
    return PatchedFile(
        b"" if copied or said["new"] else old,
        b"" if said["gone"] else new,
        (said["before"] or said["same"]).decode(),
        (said["after"] or said["new"] or said["same"]).decode(),
        said["blob"].decode(),
        said["old_blob"].decode(),
        copied,
        said["lines"] or said["binary"] or said["untold"],
    )


def _side(text: bytes) -> bytes:
    """The name behind a folder that git strips."""
    return _unquoted(text).partition(b"/")[2]


def _name_of_both(text: bytes) -> bytes:
    """The name in `a/NAME b/NAME`, where a name may have spaces, or else be in quotes."""
    quoted = _QUOTED.match(text)
    return _side(quoted[0] if quoted else text[: len(text) // 2])


def _unquoted(name: bytes) -> bytes:
    """A name without the quotes and escapes that git puts around odd ones."""

    def plain(found: re.Match[bytes]) -> bytes:
        code = found[1]
        return bytes([int(code, 8) if code.isdigit() else _ESCAPES[code[0]]])

    quoted = _QUOTED.fullmatch(name)
    return re.sub(rb"\\(\d{3}|.)", plain, quoted[1]) if quoted else name


def _check_names(file: PatchedFile) -> None:
    for path in file.names:
        if any(part.lower() in _NO_NAMES for part in path.split(b"/")):
            message = f"a repository has no file called {_shown(path)}"
            raise RebyteError(message, code="bad_patch")
        if path.count(b"/") > MOST_FOLDERS:
            many = f"a file below more than {MOST_FOLDERS} folders"
            raise RebyteError(f"the patch has {many}", code="bad_patch")


def _check_order(files: Iterable[PatchedFile]) -> None:
    """Refuse parts about a file that an earlier one has made, unless they change it in place.

    git removes all files first, and makes the others then. And what it renames is what was there
    before all of the patch.
    """
    made, gone = dict[bytes, bool](), set[bytes]()  # and whether it has another name before
    for each in files:
        if each.old == each.new:
            made[each.new] = False
            continue
        is_moved = bool(each.new) and made.get(each.old, True)
        if each.new in made or each.old in gone or (each.old in made and not is_moved):
            name = _shown(each.new if each.new in made else each.old)
            message = f"the patch names {name} twice, as several commits do: apply them one by one"
            raise RebyteError(message, code="bad_patch")
        if each.old:
            gone.add(each.old)
        if each.new:
            made[each.new] = bool(each.old)


def _check_cycles(files: Iterable[PatchedFile]) -> None:
    """Refuse files that change places, and are told by nothing else than their names.

    Applied again, they would change places again.
    """
    moves = {each.old: each.new for each in files if each.old and not (each.blob or each.content)}
    moves = {old: new for old, new in moves.items() if new not in (old, b"")}
    while moves:
        start, name = moves.popitem()
        while name in moves:
            name = moves.pop(name)
        if name == start:
            message = f"does not tell whether {_shown(name)} and others have changed places already"
            raise RebyteError(f"the patch {message}: use `git apply`", code="bad_patch")


def _odd(patch: bytes, at: int) -> RebyteError:
    line = patch[at : at + LONGEST_SHOWN].partition(b"\n")[0]
    return RebyteError(f"not a patch as git writes it: {_shown(line)}", code="bad_patch")


def _shown(text: bytes) -> str:
    """A text in quotes, or its beginning."""
    return repr(text[:LONGEST_SHOWN].decode("utf-8", "backslashreplace"))
