"""`git apply` for a patch from elsewhere, within bounds: a few bytes of one may mean gigabytes."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..system import git

LARGEST_UNPACKED = 1 << 30  # bytes of the binary files in a patch
HEADING = re.compile(rb"^GIT binary patch\n", re.MULTILINE)
_BLOCK = re.compile(rb"(literal|delta) (\d{1,18})\n((?:.+\n)*+)\n")
_LINE = re.compile(rb".+")
_LONGEST_NUMBER = 9  # bytes, of a size in a delta


def git_apply(
    words: Sequence[str],
    patch: bytes,
    root: Path,
    variables: Mapping[str, str] | None = None,
    *,
    options: Sequence[str] = (),
) -> bytes:
    """Run `git OPTIONS apply WORDS` on the patch in `root` and return what it prints.

    `variables` are those of `git.run`. Raises GitFailed, also for binary files of more
    than `LARGEST_UNPACKED` bytes, before git reads the patch.
    """
    size = unpacked(patch)
    if size > LARGEST_UNPACKED:
        raise git.GitFailed(
            f"the binary files in the patch unpack to {size / 1024**3:.1f} GiB, and"
            f" {LARGEST_UNPACKED >> 30} GiB is the most",
            hint="`apply` takes the files that are named behind --",
        )
    # In a folder below the root, git would leave out every file that is not in that folder.
    return git.run([*options, "apply", *words], root, variables, given=patch)


def unpacked(patch: bytes) -> int:
    """The bytes that git makes of the binary files in a patch, which says so before each of them.

    Raises GitFailed as `blocks` does.
    """
    total = at = 0
    while heading := HEADING.search(patch, at):
        found = blocks(patch, heading.end())
        total += sum(int(each[2]) for each in found)
        if found[0][1] == b"delta":
            total += _result_size(patch, *found[0].span(3))
        at = found[-1].end()
    return total


def blocks(patch: bytes, at: int) -> list[re.Match[bytes]]:
    """What is behind the heading of a binary file that ends there: the new content, maybe the old.

    The groups are the kind, the size in bytes and the lines. Raises GitFailed for a form that git
    does not write: it would read other numbers.
    """
    found = list[re.Match[bytes]]()
    while len(found) < 2 and (block := _BLOCK.match(patch, at)):
        found.append(block)
        at = block.end()
    if not found or (len(found) == 1 and patch.startswith((b"literal", b"delta"), at)):
        raise _not_readable()
    return found


def _result_size(patch: bytes, start: int, end: int) -> int:
    """The size of the file that a delta makes: the second of the two numbers that it begins with.

    It has no bound in that of the delta, which copies parts of the old file as often as it likes.
    """
    unpack, head = zlib.decompressobj(), b""
    try:
        for line in _LINE.finditer(patch, start, end):
            head += unpack.decompress(_decoded(line[0]), 2 * _LONGEST_NUMBER - len(head))
            if len(head) == 2 * _LONGEST_NUMBER or unpack.eof:
                break
    except (zlib.error, ValueError):
        raise _not_readable() from None
    numbers = re.match(rb"[\x80-\xff]{0,8}[\0-\x7f]([\x80-\xff]{0,8}[\0-\x7f])", head)
    if numbers is None:
        raise _not_readable()
    return sum((byte & 127) << 7 * place for place, byte in enumerate(numbers[1]))


def _decoded(line: bytes) -> bytes:
    """The bytes in a line, which begins with their number, as a letter: A-Z, then a-z."""
    letter = line[0]
    number = letter - ord("A") + 1 if letter <= ord("Z") else letter - ord("a") + 27
    return base64.b85decode(line[1:])[: max(number, 0)]


def _not_readable() -> git.GitFailed:
    return git.GitFailed("the patch has binary files that are not in git's format")
