"""The form of a patch in git's format, and its headers: what it says of each file.

The summary of git itself prints names with line breaks as they are, and is silent about modes. So
they are read here; and since git reads a header that says a thing twice, or in other words, in its
own way, a patch that does not have exactly the form that git writes is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..errors import RebyteError
from .git_apply import blocks

# The lines of a patch before its hunks that say what becomes of a file.
_HEADERS = (
    b"old mode ", b"new mode ", b"new file mode ", b"deleted file mode ", b"rename from ",
    b"rename to ", b"copy from ", b"copy to ", b"index ", b"--- ", b"+++ ",
)  # fmt: skip
MOST_FILES = 250_000  # of which Python keeps a kilobyte each
LONGEST_LINE = 40_000  # of a header: two paths, each byte in four characters
LONGEST_SHOWN = 200
MOST_FOLDERS = 250  # above one file: Python goes down in folders by recursion
_NO_NAMES = (b"", b".", b"..", b".git")
_BEGIN, _CONTENT = b"diff --git ", (b"@@ ", b"GIT binary patch")
_PART = re.compile(rb"^diff --git ", re.MULTILINE)
# What git reads wherever it is: patches of other programs, hunks and binary content.
_READ = re.compile(rb"^(?:--- |\+\+\+ |@@ |GIT binary patch)", re.MULTILINE)
_HUNK = re.compile(
    rb"^@@ -(\d{1,18})(?:,(\d{1,18}))? \+\d{1,18}(?:,(\d{1,18}))? @@(?: .*)?\n", re.MULTILINE
)
_CONTEXT = re.compile(rb"^[ \n]", re.MULTILINE)
# In a hunk, what is no part of the new lines, such as the last line break where it says so.
_NOT_MADE = re.compile(rb"^-.*\n(?:\\.*\n)?|\n\\.*\n|^[ +]", re.MULTILINE)
_BINARY = b"GIT binary patch\n"
# A line of binary content: a letter for the number of its bytes, and these.
_ENCODED = re.compile(rb"([A-Za-z])((?:[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{5})+)\n")
_ESCAPES = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
_LETTERS = {code: letter for letter, code in _ESCAPES.items()}
_MOVES = [b"rename from ", b"rename to ", b"copy from ", b"copy to "]


class PatchedFile(NamedTuple):
    """The part of a patch about one file: names, modes and the ids of its content, as written.

    A name is empty where there is no such file, a mode and an id where the patch does not say it. A
    copy is a new file; what it is `copied` from stays.
    """

    old: bytes
    new: bytes
    old_mode: str
    mode: str
    blob: str
    old_blob: str = ""
    copied: bytes = b""


_MODE = rb"(?:100644|100755|120000|160000)"
# Each header line as git writes it, by its beginning.
_FORMS = {
    **dict.fromkeys((b"old mode ", b"new mode ", b"new file mode ", b"deleted file mode "), _MODE),
    **dict.fromkeys((b"similarity index ", b"dissimilarity index "), rb"\d+%"),
    **dict.fromkeys((b"rename from ", b"rename to ", b"copy from ", b"copy to "), rb".+"),
    b"index ": rb"[0-9a-f]+\.\.[0-9a-f]+(?: " + _MODE + rb")?",
    b"--- ": rb".+",
    b"+++ ": rb".+",
    b"Binary files ": rb".+ differ",
}
_MODES = (b"new mode ", b"new file mode ", b"deleted file mode ")  # one of them at most


def check_form(patch: bytes) -> None:
    """Raise RebyteError for a patch that git does not write, and so could read differently.

    All lines of a header have to name the same two files, each as git spells it, and nothing that
    git would read may be outside of the parts. And for a name that no file in a repository has, one
    below more than `MOST_FOLDERS` folders, or more than `MOST_FILES` files.
    """
    if patch.count(b"\n" + _BEGIN) >= MOST_FILES:
        raise RebyteError(f"the patch changes more than {MOST_FILES:,} files", code="too_large")
    at = _next_part(patch, 0)
    while at < len(patch):
        header, at = _header(patch, at)
        _check_spelling(header)
        at = _next_part(patch, _after_content(patch, at))
    for file in sections(patch):
        _check_names(file)


def _next_part(patch: bytes, at: int) -> int:
    """Where the next part begins, or the end, after text that git passes over."""
    part = _PART.search(patch, at)
    end = part.start() if part else len(patch)
    if found := _READ.search(patch, at, end):
        raise _odd(_line(patch, found.start()))
    return end


def _header(patch: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """The lines of the header that begins there by their first words, and where it ends."""
    header = {_BEGIN: _line(patch, at)}
    at += len(header[_BEGIN]) + 1
    while at < len(patch) and not patch.startswith(_BEGIN, at):
        line = _line(patch, at)
        if line.startswith(_CONTENT) and b"" not in header:
            break
        name = next((each for each in _FORMS if line.startswith(each)), b"")
        # git's header ends at an empty line, so only another one may follow.
        if line and (b"" in header or name in header or not _fits(name, line, header)):
            raise _odd(line)
        header[name] = line
        at += len(line) + 1
    if not header.keys() - {_BEGIN, b""}:  # git would pass over it, and keep the names
        raise _odd(header[_BEGIN])
    return header, at


def _after_content(patch: bytes, at: int) -> int:
    """Where the hunks or the binary content end that begin there, if any do."""
    while hunk := _HUNK.match(patch, at):
        at = _hunk_end(patch, hunk)
        # git takes a hunk without context for one at the end, wherever its numbers put it.
        is_placed = int(hunk[1]) <= (int(hunk[2] or 1) > 0)
        if not is_placed and not _CONTEXT.search(patch, hunk.end(), at):
            text = hunk[0].decode("utf-8", "backslashreplace").strip()
            message = f"no line around a change says where it belongs: {text[:LONGEST_SHOWN]!r}"
            raise RebyteError(message, code="bad_patch")
    if patch.startswith(_BINARY, at):
        for block in blocks(patch, at + len(_BINARY)):
            at, end = block.span(3)
            while line := _ENCODED.match(patch, at, end):
                size = line[1][0] - (64 if line[1] <= b"Z" else 70)
                if len(line[2]) != (size + 3) // 4 * 5:
                    break
                at = line.end()
            if at < end:
                raise _odd(_line(patch, at))
            at = block.end()
    return at


def _hunk_end(patch: bytes, hunk: re.Match[bytes]) -> int:
    old, new = (1 if count is None else int(count) for count in hunk.groups()[1:])
    at = hunk.end()
    while old or new or patch.startswith(b"\\ ", at):
        kind, end = patch[at : at + 1], patch.find(b"\n", at)
        old -= kind in (b" ", b"\n", b"-")
        new -= kind in (b" ", b"\n", b"+")
        if kind not in (b" ", b"\n", b"-", b"+", b"\\") or min(old, new) < 0 or end < 0:
            raise _odd(_line(patch, at))
        at = end + 1
    return at


def made_lines(part: bytes) -> Iterator[bytes]:
    """The lines that each hunk makes, with those around them, in a patch of the right form."""
    for hunk in _HUNK.finditer(part):
        yield _NOT_MADE.sub(b"", part[hunk.end() : _hunk_end(part, hunk)])


def _line(patch: bytes, at: int) -> bytes:
    end = patch.find(b"\n", at)
    if end < 0 or end - at > LONGEST_LINE:
        raise _odd(patch[at : at + LONGEST_LINE])
    return patch[at:end]


def _odd(line: bytes) -> RebyteError:
    text = line[:LONGEST_SHOWN].decode("utf-8", "backslashreplace")
    return RebyteError(f"not a patch as git writes it: {text!r}", code="bad_patch")


def _check_spelling(header: Mapping[bytes, bytes]) -> None:
    """Raise RebyteError if the lines of a header do not agree on the names."""
    fields = {name: line.removeprefix(name) for name, line in header.items()}
    moves = [name for name in _MOVES if name in fields]
    old, new = _names(fields)
    sides = {
        b"--- ": b"" if b"new file mode " in fields else old,
        b"+++ ": b"" if b"deleted file mode " in fields else new,
    }
    lines = {name: fields[name].removesuffix(b"\t") for name in sides if name in fields}
    both = fields[_BEGIN]
    fits = [
        moves in ([], _MOVES[:2], _MOVES[2:]) and (bool(moves) or old == new),
        *(fields[name] in _spellings(each) for name, each in zip(moves, (old, new), strict=False)),
        *(_is_side(lines[name], sides[name]) for name in lines),
        any(
            both.startswith(first + b" ") and _is_side(both.removeprefix(first + b" "), new)
            for first in _spellings(_prefix(both) + old)
        ),
    ]
    if not all(fits):
        raise _odd(header[_BEGIN])


def _is_side(text: bytes, name: bytes) -> bool:
    """Whether a text is a name behind a folder that git strips, or the one for no file."""
    if not name:
        return text == b"/dev/null"
    prefix = _prefix(text)
    return bool(prefix) and text in _spellings(prefix + name)


def _prefix(text: bytes) -> bytes:
    found = re.match(rb'"?([\w.+-]+/)', text)
    return found[1] if found else b""


def _spellings(name: bytes) -> list[bytes]:
    """How git may write a name: in quotes if it has odd characters, or those beyond ASCII."""
    if b"\0" in name:
        return []
    body = re.sub(rb'[\x01-\x1f\x7f"\\]', _escaped, name)
    return [
        *([name] if body == name else []),
        *(b'"%b"' % each for each in (body, re.sub(rb"[\x80-\xff]", _escaped, body))),
    ]


def _escaped(found: re.Match[bytes]) -> bytes:
    code = found[0][0]
    return b"\\%c" % _LETTERS[code] if code in _LETTERS else b"\\%03o" % code


def _check_names(file: PatchedFile) -> None:
    for path in {file.old, file.new}:
        if path and any(part.lower() in _NO_NAMES for part in path.split(b"/")):
            text = path.decode("utf-8", "backslashreplace")
            raise RebyteError(f"a repository has no file called {text!r}", code="bad_patch")
        if path.count(b"/") > MOST_FOLDERS:
            many = f"a file below more than {MOST_FOLDERS} folders"
            raise RebyteError(f"the patch has {many}", code="bad_patch")


def _fits(name: bytes, line: bytes, header: Mapping[bytes, bytes]) -> bool:
    """Whether a line may stand behind the lines of a header."""
    if not name or not re.fullmatch(_FORMS[name], line.removeprefix(name)):
        return False
    if b"Binary files " in header:
        return False
    if name in _MODES:
        others = any(each in header for each in _MODES)
        return not others and (name == b"new mode ") == (b"old mode " in header)
    if name == b"index " and line.count(b" ") > 1:  # with the mode, which did not change
        return not any(each in header for each in _MODES)
    return name != b"old mode " or not any(each in header for each in _MODES)


def sections(patch: bytes) -> Iterator[PatchedFile]:
    """The files of a patch in git's format; those of other formats have no modes and no renames."""
    fields: dict[bytes, bytes] = {}
    for line in _header_lines(patch):
        if line.startswith(_BEGIN):
            if fields:
                yield _section(fields)
            fields = {_BEGIN: line.removeprefix(_BEGIN)}
        elif found := next((name for name in _HEADERS if line.startswith(name)), None):
            fields[found] = line.removeprefix(found)
    if fields:
        yield _section(fields)


def _header_lines(patch: bytes) -> Iterator[bytes]:
    """The lines of each header, and the one after it: what follows may be millions."""
    at = 0 if patch.startswith(_BEGIN) else patch.find(b"\n" + _BEGIN) + 1 or len(patch)
    while at < len(patch):
        end = patch.find(b"\n", at)
        end = len(patch) if end < 0 else end
        line = patch[at:end]
        yield line
        is_over = line.startswith(_CONTENT)
        at = (patch.find(b"\n" + _BEGIN, end) + 1 or len(patch)) if is_over else end + 1


def _section(fields: dict[bytes, bytes]) -> PatchedFile:
    old, new = _names(fields)
    ids, _, mode = fields.get(b"index ", b"").partition(b" ")
    copied = old if b"copy to " in fields else b""
    if copied or b"new file mode " in fields:
        old = b""
    if b"deleted file mode " in fields:
        old, new = old or new, b""
    modes = (b"new mode ", b"new file mode ")
    after = next((fields[name] for name in modes if name in fields), mode)
    before = fields.get(b"old mode ", mode)
    old_blob, _, blob = ids.partition(b"..")
    return PatchedFile(
        old,
        new,
        before.decode("ascii", "replace"),
        after.decode("ascii", "replace"),
        blob.decode("ascii", "replace"),
        old_blob.decode("ascii", "replace"),
        copied,
    )


def _names(fields: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """The names before and after, the same for a file that is new or deleted."""
    both = _name_of_both(fields[_BEGIN])
    old = _name(fields, b"rename from ", b"copy from ") or _side(fields, b"--- ") or both
    new = _name(fields, b"rename to ", b"copy to ") or _side(fields, b"+++ ") or both
    return old, new


def _name(fields: Mapping[bytes, bytes], *names: bytes) -> bytes:
    """The name in the first of these lines that is there."""
    return next((_unquoted(fields[name]) for name in names if name in fields), b"")


def _side(fields: Mapping[bytes, bytes], line: bytes) -> bytes:
    """The name in a `---` or `+++` line without its prefix; empty for no file."""
    name = _unquoted(fields.get(line, b"").removesuffix(b"\t"))
    return b"" if name == b"/dev/null" else name.partition(b"/")[2]


def _name_of_both(text: bytes) -> bytes:
    """The name in `a/NAME b/NAME`, where a name may have spaces, or else be in quotes."""
    if text.startswith(b'"'):
        quoted = re.match(rb'"(?:[^"\\]|\\.)*"', text)
        text = _unquoted(quoted[0]) if quoted else b""
    else:
        text = text[: len(text) // 2]
    return text.partition(b"/")[2]


def _unquoted(name: bytes) -> bytes:
    """A name without the quotes and escapes that git puts around odd ones."""
    if len(name) < 2 or not (name.startswith(b'"') and name.endswith(b'"')):
        return name

    def plain(found: re.Match[bytes]) -> bytes:
        code = found[1]
        return bytes([int(code, 8) & 255 if code.isdigit() else _ESCAPES.get(code[0], code[0])])

    return re.sub(rb"\\([0-7]{3}|.)", plain, name[1:-1], flags=re.DOTALL)
