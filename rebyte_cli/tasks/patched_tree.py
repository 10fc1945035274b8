"""The tree that a patch makes of another one: objects alone, no working tree and no hook."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import RebyteError
from ..system import git
from .git_apply import git_apply
from .patch import (
    PatchConflict,
    PatchUnusable,
    conflict,
    listed,
    own_repository,
    parts,
    safe_repository,
    shown,
    unmerged,
)
from .patch_headers import PatchedFile, check_form, made_lines, sections

T = TypeVar("T")
Part = tuple[bytes, PatchedFile]  # of a patch, and what its header says
Entries = Mapping[bytes, tuple[str, str]]  # the modes and blobs of files, by their names
LARGEST_READ = 1 << 18  # bytes of a file, of which `git.MOST_WORDS` are read together
SHORTEST_ID = 7  # hexadecimal digits that git writes of an id by default
CONTENT = re.compile(rb"^(?:@@ |GIT binary patch|Binary files )", re.MULTILINE)
LACKS_CONTENT = re.compile(rb"(?:(?!@@ |GIT binary patch).+\n)+?Binary files .+ differ\n")
COPY = re.compile(rb"^(?:similarity index|copy from|copy to) .*\n", re.MULTILINE)
BINARY = b"\nGIT binary patch\n"
NO_FILE = "000000"  # git's mode of what is not there
# Else `.gitmodules` and the repository's configuration could hide new commits of submodules.
DIFFERENCE = ("diff-tree", "-r", "--no-renames", "--ignore-submodules=none")


class TreeChange(NamedTuple):
    """How a file differs between two trees: mode and blob in each, `NO_FILE` and zeros in none."""

    path: bytes
    old_mode: str
    mode: str
    old_blob: str
    blob: str


class PatchedTree(NamedTuple):
    """What a patch makes of a tree: the id of a new one, in which conflicts are marked.

    `stages` are the lines of git's index about these, by the names of the files. Of what `patched`
    returns, `changes` are all that the patch changes, and `new_index` is the file of one with it.
    """

    tree: str
    stages: Mapping[bytes, Sequence[bytes]]
    changes: Sequence[TreeChange] = ()
    new_index: str = ""

    @property
    def conflicts(self) -> list[str]:
        """The files with conflicts, for a list."""
        return [listed(shown(name)) for name in self.stages]


def tree_with(root: Path, base: str, patch: bytes, attributes: str = "") -> str:
    """The tree that a patch makes of the commit or tree `base`, or of nothing if that is empty.

    It is merged where files have changed, as the `.gitattributes` of the commit `attributes` say,
    or else those of `base` (git 2.41; an older git obeys those of `base` in any case). Only objects
    are written. Raises PatchConflict if the patch does not apply, which names the files with
    conflicts; and as `of_patch` does.
    """
    return _made(root, base, patch, attributes, "").tree


def patched(root: Path, base: str, patch: bytes, own: Mapping[str, str]) -> PatchedTree:
    """As `tree_with`, but with the tree if there are conflicts, too.

    `own` names an index of ours that has the files of `base`. The new one is beside it.
    """
    return _made(root, base, patch, "", own["GIT_INDEX_FILE"])


def _made(root: Path, base: str, patch: bytes, attributes: str, known: str) -> PatchedTree:
    try:
        check_form(patch)
    except RebyteError as error:
        raise PatchUnusable(error.message) from None

    def tree(given: bytes) -> PatchedTree:
        return _patched(root, base, given, attributes, known)

    made = of_patch(lambda: tree(patch), lambda: tree(_harmless(patch)))
    before = base or git.empty_tree(root, own_repository())
    made = made._replace(changes=difference(root, before, made.tree))
    named = {name for each in sections(patch) for name in (each.old, each.new)}
    if odd := {each.path for each in made.changes} - named:
        names = ", ".join(map(shown, sorted(odd)))
        raise conflict([], f"it changes what it does not name: {names}")
    return made


def of_patch(attempt: Callable[[], T], without: Callable[[], object]) -> T:
    """What `attempt` makes of a patch, or of what that made.

    What git says does not tell whose fault it is if it fails: the name of a file can be any text.
    So it is the patch's if git fails twice in `attempt`, and not in `without`, which does the same
    without the patch: that is not in git's form, has names that no repository takes, takes more
    memory, time or room than git may, or crashes it. PatchUnusable says so. In any other case, such
    as a full disk, it is this machine that fails. Raises that GitFailed, and what else `attempt`
    raises.
    """
    with suppress(git.GitFailed):
        return attempt()
    try:
        return attempt()
    except git.GitFailed as error:
        try:
            without()
        except git.GitFailed:
            raise error from None
        raise PatchUnusable(f"the patch cannot be used: {error.message}") from None


def _harmless(patch: bytes) -> bytes:
    """A patch that adds one file of one line, as long as another patch: it takes as much room."""
    name = b"rebyte-%s" % secrets.token_hex().encode()
    head = b"diff --git a/%b b/%b\nnew file mode 100644\n--- /dev/null\n+++ b/%b\n"
    return head % (name, name, name) + b"@@ -0,0 +1 @@\n+%b\n" % patch.replace(b"\n", b" ")


def _patched(root: Path, base: str, patch: bytes, attributes: str, known: str) -> PatchedTree:
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        # Even with --cached, git checks out a file that the patch adds but the index has.
        scratch, index = Path(folder) / "tree", os.path.join(folder, "index")
        scratch.mkdir()
        variables = safe_repository(root, filters=False) | {
            "GIT_DIR": _git_dir(root),
            "GIT_WORK_TREE": str(scratch),
            "GIT_INDEX_FILE": index,
            "GIT_ATTR_SOURCE": attributes or base or git.empty_tree(root, own_repository()),
        }
        root = scratch
        if known:  # which is faster than to read the tree
            shutil.copyfile(known, index)
        else:
            git.run(["read-tree", base or "--empty"], root, variables)
        made, words = PatchedTree("", {}), ["--cached", "--3way", "--whitespace=nowarn"]
        given = list(parts(patch))
        names = {name for _, each in given for name in (*_names(each), each.copied)}
        before = entries_of(root, variables, names - {b""})
        found = _absent(root, variables, given, before)
        try:
            if found or not given:
                git_apply(words, _joined(found), root, variables)
        except git.GitFailed as error:
            if error.is_partial:
                raise PatchUnusable(f"the patch does not apply: {error.message}") from None
            made = made._replace(stages=unmerged(root, variables))
            if made.stages and known:
                _mark_conflicts(root, variables, made.stages)
            # With this status, git has found that it does not apply; it stops with another one.
            elif made.stages or error.status == 1:
                raise conflict(made.conflicts, error.message) from None
            else:
                _check_folders(root, variables, [each for _, each in found])
                raise
        told = {each.new: each for _, each in found if len(each.old_blob) >= SHORTEST_ID}
        told.pop(b"", None)  # what is deleted
        for name, (_, blob) in entries_of(root, variables, told.keys() - made.stages).items():
            _, old_blob = before.get(told[name].old or told[name].copied, ("", ""))
            # git takes hunks that fit elsewhere.
            if old_blob.startswith(told[name].old_blob) and not blob.startswith(told[name].blob):
                raise conflict([], f"{listed(shown(name))} would not be what the patch says")
        made = made._replace(tree=tree_of(root, variables))
        # Only now: another attempt needs `known` as it is, and no lock of a git that was killed.
        return made._replace(new_index=shutil.move(index, f"{known}.new")) if known else made


def _absent(
    root: Path, variables: Mapping[str, str], found: Sequence[Part], there: Entries
) -> list[Part]:
    """The parts of a patch about files that the index does not have as the patch makes them.

    `there` are the entries of the files that it names. Raises PatchConflict for one that makes a
    file where there is one, or whose content is not in the patch.
    """
    told = {each.old_blob for _, each in found} | {blob for _, blob in there.values()}
    told |= {each.blob for part, each in found if BINARY in part}
    known = _sizes(root, variables, told)
    counts = Counter(name for _, each in found for name in _names(each))
    # Parts about the same files are there together, or not.
    shared = {name for name, count in counts.items() if count > 1}
    hunks = {each.new: part for part, each in found if b"\n@@ " in part and _is_untold(each, known)}
    fitting = _with_lines(root, variables, hunks, there, known) | (hunks.keys() & shared)
    sources = {each.old: each for _, each in found}
    like = {each.old for _, each in found if each.old != each.new} - there.keys()
    units = defaultdict[object, list[Part]](list)
    for part, each in found:
        is_like = _is_like(part, each, there, fitting, sources.get(each.copied))
        (like.add if is_like else like.discard)(each.new)
        units[each if shared.isdisjoint(_names(each)) else None].append((part, each))
    maybe = [unit for unit in units.values() if all(_names(each) <= like for _, each in unit)]
    dropped = {each for unit in _those_there(root, variables, maybe) for _, each in unit}
    found = [(part, each) for part, each in found if each not in dropped]
    _check_room(found, there)
    _check_binary(root, variables, found, known)
    return found


def _check_binary(
    root: Path, variables: Mapping[str, str], found: Sequence[Part], known: Container[str]
) -> None:
    """Refuse binary files whose content the patch does not have, or not as it says.

    If there is a blob with the id that a part tells, git takes that, whatever is in the patch. So
    these are made where there are none but the old ones. Raises PatchConflict.
    """
    for part, each in found:
        if each.new and LACKS_CONTENT.match(part):
            name = listed(shown(each.new))
            raise conflict([], f"{name} is binary, and its content is not in the patch")
    binary = (each for each in found if BINARY in each[0] and each[1].new)
    made = [(part, each) for part, each in binary if each.blob in known]
    if not made:
        return
    olds = [each for _, each in made if each.old_blob in known]
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        pack = Path(folder) / "pack"
        pack.mkdir()
        words = ["pack-objects", "-q", "--window=0", str(pack / "pack")]
        _fed(words, root, variables, (each.old_blob.encode() + b"\n" for each in olds))
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
            git_apply(["--cached"], _joined(made), root, store)
        except git.GitFailed as error:
            if error.status != 1:
                raise
            reason = f"not what it says of a binary file: {error.message}"
            raise conflict([], reason) from None


def _joined(found: Iterable[Part]) -> bytes:
    return b"".join(part for part, _ in found)


def _names(file: PatchedFile) -> set[bytes]:
    return {file.old, file.new} - {b""}


def _sizes(root: Path, variables: Mapping[str, str], ids: Iterable[str]) -> dict[str, int]:
    """How many bytes the blobs have that there are of these ids, as a patch may tell them."""
    asked = sorted(ids)
    words = ["cat-file", "--batch-check=%(objecttype) %(objectsize)"]
    told = _fed(words, root, variables, (f"{each}\n".encode() for each in asked)).splitlines()
    found = zip(asked, (line.split() for line in told), strict=True)
    return {each: int(size[0]) for each, (kind, *size) in found if kind == b"blob"}


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
        ids = (f"{there[name][1]}\n".encode() for name in some)
        text, at = _fed(["cat-file", "--batch"], root, variables, ids), 0
        for name in some:
            start = text.index(b"\n", at) + 1
            at = start + sizes[there[name][1]] + 1
            if any(text.find(lines, start, at - 1) < 0 for lines in made_lines(hunks[name])):
                found.discard(name)
    return found


def _fed(
    words: Sequence[str], root: Path, variables: Mapping[str, str], given: Iterable[bytes]
) -> bytes:
    """What git prints that reads these lines. Raises GitFailed."""
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        file = Path(folder) / "given"
        file.write_bytes(b"".join(given))
        return git.run(words, root, variables, given=file)


def _those_there(
    root: Path, variables: Mapping[str, str], units: Sequence[Sequence[Part]]
) -> list[Sequence[Part]]:
    """Those of these parts of a patch that the index has as they make them."""
    if not units or _has(root, variables, itertools.chain(*units)):
        return list(units)
    half = len(units) // 2
    some = (units[:half], units[half:]) if half else ()
    return [unit for each in some for unit in _those_there(root, variables, each)]


def _check_room(found: Iterable[Part], there: Entries) -> None:
    """Refuse parts that make a file where there is one, which git would replace.

    Of two new files, it marks a conflict. Raises PatchConflict.
    """
    leaving = {each.old for _, each in found if each.old != each.new}
    for part, each in found:
        if each.new not in there or each.new in {each.old, *leaving}:
            continue
        is_new = not (each.old or each.copied) and CONTENT.search(part)
        if not is_new or each.mode[:3] != there[each.new][0][:3]:
            raise conflict([], f"{listed(shown(each.new))} is there already")


def _has(root: Path, variables: Mapping[str, str], found: Iterable[Part]) -> bool:
    """Whether the index has what parts of a patch make: the ids that they tell may be others'."""
    words = ["--cached", "--whitespace=nowarn", "--check", "--reverse"]
    others, copies = list[bytes](), list[bytes]()
    for part, each in found:
        if LACKS_CONTENT.match(part):
            continue  # it tells an id, and nothing else
        if not each.copied:
            others.append(part)
        elif CONTENT.search(part):
            # Else git takes what undoes it for a copy to the source, which is there.
            copies.append(COPY.sub(b"", part, count=3))
    with suppress(git.GitFailed):
        for some in filter(None, (others, copies)):
            git_apply(words, b"".join(some), root, variables)
        return True
    return False


def tree_of(root: Path, variables: Mapping[str, str]) -> str:
    """The tree of what is in an index. Raises GitFailed, also for one with conflicts."""
    return git.line(["write-tree", "--missing-ok"], root, variables)


def entries_of(
    root: Path, variables: Mapping[str, str], names: Iterable[bytes]
) -> dict[bytes, tuple[str, str]]:
    """The modes and blobs of those of these files that an index has."""
    result = {}
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "ls-files", "-z", "--stage", "--", *some]
        for line in git.run(words, root, variables).split(b"\0")[:-1]:
            about, _, name = line.partition(b"\t")
            mode, blob, _ = about.decode().split(" ")
            result[name] = (mode, blob)
    return result


def set_entries(root: Path, variables: Mapping[str, str], lines: Sequence[bytes]) -> None:
    """Put lines as `ls-files --stage` prints them into an index; mode 0 removes. GitFailed."""
    if lines:
        words = ["update-index", "-z", "--index-info"]
        _fed(words, root, variables, (line + b"\0" for line in lines))


def _is_untold(file: PatchedFile, known: Container[str]) -> bool:
    """Whether its new content can have another id: it is unknown what it was changed from."""
    return file.old_blob not in known if file.old or file.copied else not file.blob


def _is_like(
    part: bytes, file: PatchedFile, there: Entries, fitting: Set[bytes], source: PatchedFile | None
) -> bool:
    """Whether a file can be what a part of a patch makes, as far as it tells its mode and blob.

    `fitting` are files whose blob may be another one, and `source` is the part about what it is
    copied from, if there is one.
    """
    mode, blob = there.get(file.new, ("", ""))
    if mode not in ([file.mode] if file.mode else ["100644", "100755", "120000"]):
        return False
    if file.blob or CONTENT.search(part):
        is_told = len(file.blob) >= SHORTEST_ID and blob.startswith(file.blob)
        return is_told or file.new in fitting
    if file.old:  # it changes the mode alone, or the name: then what was moved away is there
        return True
    if source and source.old_blob:
        return blob.startswith(source.old_blob)
    return there.get(source.new if source else file.copied, ("", ""))[1] == blob


def _mark_conflicts(root: Path, variables: Mapping[str, str], names: Iterable[bytes]) -> None:
    """Replace the stages of each file in the index with one that has both sides, as git merges."""
    for some in git.portions(list(map(os.fsdecode, names))):
        words = ["--literal-pathspecs", "checkout", "--quiet", "--merge", "--", *some]
        git.run(words, root, variables)
        git.run(["update-index", "--", *some], root, variables)


def _check_folders(root: Path, variables: Mapping[str, str], patch: Sequence[PatchedFile]) -> None:
    """Refuse a patch with a file in what is a file, or in place of a folder, in the index.

    git notices this last, and stops as it does for a full disk. Raises PatchConflict.
    """
    files = set(git.run(["ls-files", "-z"], root, variables).split(b"\0")[:-1])
    files.difference_update(each.old for each in patch if each.old != each.new)
    names = [each.new for each in patch if len(each.new) <= git.LONGEST_PATH]
    files.update(filter(None, names))
    for name in sorted(files):
        for folder in _above(name):
            if folder in files:
                raise no_folder(folder, name)


def no_folder(name: bytes, inside: bytes) -> PatchConflict:
    """The error for a file that would be in one which is no folder."""
    return conflict([], f"{shown(name)} is no folder, but {shown(inside)} is in it")


def difference(root: Path, before: str, after: str) -> list[TreeChange]:
    """The files that differ between two commits or trees. Raises GitFailed."""
    if before == after:
        return []
    words = [*DIFFERENCE, "-z", "--raw", before, after]
    fields = git.run(words, root, own_repository()).split(b"\0")[:-1]
    result = []
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        old_mode, mode, old_blob, blob, _ = about.decode().removeprefix(":").split(" ")
        result.append(TreeChange(path, old_mode, mode, old_blob, blob))
    return result


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _git_dir(root: Path) -> str:
    return git.line(["rev-parse", "--absolute-git-dir"], root, own_repository())
