"""The parts of a patch that an index does not have yet: only these can be applied to it."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

from ..system import git
from .git_apply import git_apply
from .patch import conflict, listed, shown
from .patch_headers import BINARY, LINES, UNTOLD, PatchedFile, made_lines
from .trees import Entries, set_entries

Part = tuple[bytes, PatchedFile]  # of a patch, and what its header says
LARGEST_READ = 1 << 18  # bytes of a file, of which `git.MOST_WORDS` are read together
SHORTEST_ID = 7  # hexadecimal digits that git writes of an id by default
COPY = re.compile(rb"^(?:similarity index|copy from|copy to) .*\n", re.MULTILINE)


def absent(
    root: Path, variables: Mapping[str, str], found: Sequence[Part], there: Entries
) -> list[Part]:
    """The parts of a patch about files that the index does not have as the patch makes them.

    `there` are the entries of the files that it names. Raises PatchConflict for one that makes a
    file where there is one, or whose content is not in the patch.
    """
    told = {each.old_blob for _, each in found} | {blob for _, blob in there.values()}
    told |= {each.blob for _, each in found if each.content == BINARY}
    known = _sizes(root, variables, told)
    counts = Counter(name for _, each in found for name in each.names)
    # Parts about the same files are there together, or not.
    shared = {name for name, count in counts.items() if count > 1}
    lines = ((part, each) for part, each in found if each.content == LINES)
    hunks = {each.new: part for part, each in lines if _is_untold(each, known)}
    fitting = _with_lines(root, variables, hunks, there, known) | (hunks.keys() & shared)
    sources = {each.old: each for _, each in found}
    like = {each.old for _, each in found if each.old != each.new} - there.keys()
    units = defaultdict[object, list[Part]](list)
    for part, each in found:
        is_like = _is_like(each, there, fitting, sources.get(each.copied))
        (like.add if is_like else like.discard)(each.new)
        units[each if shared.isdisjoint(each.names) else None].append((part, each))
    maybe = [unit for unit in units.values() if all(each.names <= like for _, each in unit)]
    dropped = {each for unit in _those_there(root, variables, maybe) for _, each in unit}
    found = [(part, each) for part, each in found if each not in dropped]
    _check_room(found, there)
    _check_binary(root, variables, found, known)
    return found


def _is_untold(file: PatchedFile, known: Container[str]) -> bool:
    """Whether its new content can have another id: it is unknown what it was changed from."""
    return file.old_blob not in known if file.old or file.copied else not file.blob


def _with_lines(
    root: Path,
    variables: Mapping[str, str],
    hunks: Mapping[bytes, bytes],
    there: Entries,
    sizes: Mapping[str, int],
) -> set[bytes]:
    """Those files of the index that can have what parts of a patch make of lines.

    Only git can tell that they do, but it would have to be asked again for each one that does not.
    """
    found = set(hunks.keys() & there.keys())
    small = [name for name in found if sizes.get(there[name][1], LARGEST_READ) < LARGEST_READ]
    for some in git.portions(small):
        ids = "".join(f"{there[name][1]}\n" for name in some).encode()
        text, at = git.run(["cat-file", "--batch"], root, variables, given=ids), 0
        for name in some:
            start = text.index(b"\n", at) + 1
            at = start + sizes[there[name][1]] + 1
            if any(text.find(lines, start, at - 1) < 0 for lines in made_lines(hunks[name])):
                found.discard(name)
    return found


def _is_like(
    file: PatchedFile, there: Entries, fitting: Set[bytes], source: PatchedFile | None
) -> bool:
    """Whether a file can be what a part of a patch makes, as far as that tells its mode and blob.

    `fitting` are files whose blob may be another one, and `source` is the part about what it is
    copied from, if there is one.
    """
    mode, blob = there.get(file.new, ("", ""))
    if not mode or mode != (file.mode or mode):
        return False
    if file.blob or file.content:
        is_told = len(file.blob) >= SHORTEST_ID and blob.startswith(file.blob)
        return is_told or file.new in fitting
    if file.old:  # it changes the mode alone, or the name: then what was moved away is there
        return True
    if source and source.old_blob:
        return blob.startswith(source.old_blob)
    return there.get(source.new if source else file.copied, ("", ""))[1] == blob


def _those_there(
    root: Path, variables: Mapping[str, str], units: Sequence[Sequence[Part]]
) -> list[Sequence[Part]]:
    """Those of these parts of a patch that the index has as they make them."""
    if not units or _has(root, variables, itertools.chain(*units)):
        return list(units)
    half = len(units) // 2
    some = (units[:half], units[half:]) if half else ()
    return [unit for each in some for unit in _those_there(root, variables, each)]


def _has(root: Path, variables: Mapping[str, str], found: Iterable[Part]) -> bool:
    """Whether the index has what parts of a patch make: the ids that they tell may be others'."""
    words = ["--cached", "--whitespace=nowarn", "--check", "--reverse"]
    others, copies = list[bytes](), list[bytes]()
    for part, each in found:
        if each.content == UNTOLD:
            continue  # it tells an id, and nothing else
        if not each.copied:
            others.append(part)
        elif each.content:
            # Else git takes what undoes it for a copy to the source, which is there.
            copies.append(COPY.sub(b"", part, count=3))
    with suppress(git.GitFailed):
        for some in filter(None, (others, copies)):
            git_apply(words, b"".join(some), root, variables)
        return True
    return False


def _check_room(found: Iterable[Part], there: Entries) -> None:
    """Refuse parts that make a file where there is one, which git would replace.

    Of two new files, it marks a conflict. Raises PatchConflict.
    """
    leaving = {each.old for _, each in found if each.old != each.new}
    for _, each in found:
        if each.new not in there or each.new in {each.old, *leaving}:
            continue
        is_new = not (each.old or each.copied) and each.content
        if not is_new or each.mode[:3] != there[each.new][0][:3]:
            raise conflict([], f"{listed(shown(each.new))} is there already")


def _check_binary(
    root: Path, variables: Mapping[str, str], found: Sequence[Part], known: Container[str]
) -> None:
    """Refuse binary files whose content the patch does not have, or not as it says.

    If there is a blob with the id that a part tells, git takes that, whatever is in the patch. So
    these are made where there are none but the old ones. Raises PatchConflict.
    """
    for _, each in found:
        if each.new and each.content == UNTOLD:
            name = listed(shown(each.new))
            raise conflict([], f"{name} is binary, and its content is not in the patch")
    binary = (each for each in found if each[1].content == BINARY and each[1].new)
    made = [(part, each) for part, each in binary if each.blob in known]
    if not made:
        return
    olds = [each for _, each in made if each.old_blob in known]
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        pack = Path(folder) / "pack"
        pack.mkdir()
        words = ["pack-objects", "-q", "--window=0", str(pack / "pack")]
        ids = "".join(f"{each.old_blob}\n" for each in olds).encode()
        git.run(words, root, variables, given=ids)
        store = {
            **variables,
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
            "GIT_INDEX_FILE": os.path.join(folder, "index"),
        }
        about = (f"{each.old_mode or '100644'} {each.old_blob}\t".encode() for each in olds)
        names = (each.old or each.copied for each in olds)
        set_entries(root, store, list(map(bytes.__add__, about, names)))
        try:
            git_apply(["--cached"], joined(made), root, store)
        except git.GitFailed as error:
            if error.status != 1:
                raise
            reason = f"not what it says of a binary file: {error.message}"
            raise conflict([], reason) from None


def _sizes(root: Path, variables: Mapping[str, str], ids: Iterable[str]) -> dict[str, int]:
    """How many bytes the blobs have that there are of these ids, as a patch may tell them."""
    asked = sorted(ids)
    words = ["cat-file", "--batch-check=%(objecttype) %(objectsize)"]
    given = "".join(f"{each}\n" for each in asked).encode()
    told = git.run(words, root, variables, given=given).splitlines()
    found = zip(asked, (line.split() for line in told), strict=True)
    return {each: int(size[0]) for each, (kind, *size) in found if kind == b"blob"}


def joined(found: Iterable[Part]) -> bytes:
    """The patch that has these parts alone."""
    return b"".join(part for part, _ in found)
