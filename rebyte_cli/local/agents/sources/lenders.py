"""Objects of git that workspaces borrow instead of having copies of their own.

`code/` of a workspace borrows the objects of its clone from `base.git` beside it. That borrows
those of a repository on this machine from a lender: a bare repository with exactly what one commit
reaches, kept once for all workspaces that begin there. The jail shows both read-only at the same
paths as outside. No agent can write there, nor see what its own branch does not reach.

A clone of a folder that borrows would borrow, too, and break when the lender is gone. So `code/` is
made complete before its user is told where it is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ....system import git
from ....system.files import flocked
from ....system.permissions import make_folder
from .. import agent_files
from .source import CLONE_SECONDS

FOLDER = "lenders"  # of the state folder: one folder per repository, and below it one per commit
ALTERNATES = "objects/info/alternates"
LARGEST_LIST = 1 << 20  # bytes
# A new commit adds only what is new to those of earlier ones, whose number slows git down.
LONGEST_CHAIN = 20
LOOKED_AT = 5  # of the earlier commits, the last used
# A copy on the same disk is not worth half a minute of looking for deltas between loose objects.
UPLOAD_PACK = "git -c pack.window=0 upload-pack"
GRACE_SECONDS = 3600
NEW = "new"  # begins the random name of what is not yet a lender
MAKING = f"{FOLDER}/*/{NEW}*"
REF = "refs/tags/base"


@contextmanager
def in_use(state_dir: Path) -> Iterator[None]:
    """Keep every lender: one is found, or made, and then named by the `base.git` that borrows."""
    folder = state_dir / FOLDER
    make_folder(folder)
    with flocked(folder, shared=True):
        yield


def find(state_dir: Path, place: Path, branch: str | None) -> Path | None:
    """The lender for a branch (or tag, or HEAD) of the repository at `place`, made if missing.

    None for a branch without a commit, and a repository without its whole history. Raises
    GitFailed and OSError.
    """
    ref = git.ref_of(place, branch)
    if ref is None or git.line(["rev-parse", "--is-shallow-repository"], place) == "true":
        return None
    key = hashlib.sha256(os.fsencode(os.path.realpath(git.common_folder(place)))).hexdigest()[:16]
    folder = state_dir / FOLDER / key
    make_folder(folder)
    with flocked(folder):
        found = folder / git.line(["rev-parse", f"{ref}^{{commit}}"], place)
        if not found.exists():
            found = _make(folder, place, ref, found.name)
        os.utime(found)
    return found


def _make(folder: Path, place: Path, ref: str, commit: str) -> Path:
    """A new lender for the commit that `ref` names: by now it may be another one."""
    with agent_files.new_folder(folder, NEW) as making:
        hashes = git.line(["rev-parse", "--show-object-format"], place)
        words = ["init", "--quiet", "--bare", "--template=", f"--object-format={hashes}"]
        git.run([*words, str(making)])
        if known := _ancestor(folder, place, commit):
            lend(making, [known, *lent(known)])
        own = ["--git-dir", str(making)]
        words = [*own, "-c", "fetch.unpackLimit=1", "fetch", "--quiet", "--no-tags"]
        words += ["--upload-pack", UPLOAD_PACK, "--", str(place), f"{ref}:{REF}"]
        git.run(words, timeout=CLONE_SECONDS)
        made = folder / git.line([*own, "rev-parse", f"{REF}^{{commit}}"])
        if not made.exists():
            making.rename(made)
    return made


def _ancestor(folder: Path, place: Path, commit: str) -> Path | None:
    """The last used lender for a commit that this one has in its history."""
    found = [path for path in folder.iterdir() if not path.name.startswith(NEW)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for lender in found[:LOOKED_AT]:
        is_above = git.is_ancestor(place, lender.name, commit)
        if is_above and len(lent(lender)) < LONGEST_CHAIN:
            return lender
    return None


def lend(borrower: Path, lenders: Iterable[Path]) -> None:
    """Let a repository borrow the objects of others."""
    lines = [b"%s\n" % os.fsencode(lender / "objects") for lender in lenders]
    agent_files.write(borrower, ALTERNATES, b"".join(lines))


def lent(borrower: Path) -> list[Path]:
    """The repositories from which another one, that no agent can write to, borrows."""
    lines = (agent_files.read(borrower, ALTERNATES, LARGEST_LIST) or b"").splitlines()
    return [Path(os.fsdecode(line)).parent for line in lines]


def shown(base: Path) -> list[Path]:
    """The folders of objects that the jail of a workspace has to show, if its `base.git` lends."""
    if not os.path.lexists(base / ALTERNATES):
        return []
    return [repository / "objects" for repository in (base, *lent(base))]


def complete(code: Path, base: Path) -> None:
    """Copy what the clone in `code/` borrows from `base.git`, which it then needs no longer."""
    if agent_files.read(code, f".git/{ALTERNATES}", LARGEST_LIST) is None:
        return
    for folder in shown(base):
        for file in folder.glob("*/*"):
            if file.parent.name != "info":
                agent_files.copy(file, code, f".git/objects/{file.parent.name}/{file.name}")
    agent_files.remove(code, f".git/{ALTERNATES}")


def sweep(state_dir: Path, trash: Path) -> list[Path]:
    """Move the lenders to `trash` that no workspace needs, an hour after their last use.

    Returns where they are. Does nothing while a workspace is being made. Raises OSError.
    """
    folder, before = state_dir / FOLDER, time.time() - GRACE_SECONDS
    found = [path for path in folder.glob("*/*") if not path.name.startswith(NEW)]
    kept = {path for path in found if path.stat().st_mtime > before}
    moved: list[Path] = []
    if len(kept) == len(found):
        return moved
    with suppress(BlockingIOError), flocked(folder, wait=False):
        kept |= {one for base in state_dir.glob("workspaces/*/base.git") for one in lent(base)}
        kept |= {one for lender in kept for one in lent(lender)}
        for path in found:
            if path not in kept and path.stat().st_mtime <= before:
                make_folder(trash)
                moved.append(trash / f"{path.parent.name}.{path.name}.{os.getpid()}")
                path.rename(moved[-1])
    return moved
