"""What a run changed: `code/` compared with the commit that the workspace began with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ...system.git import SAFE, GitFailed
from ...system.process_group import ProcessGroup
from . import jail
from .workspace import Workspace

LARGEST_PATCH = 64 * 1024 * 1024
GIT_SECONDS = 300
LOOK_SECONDS = 0.2
BASE = "/base.git"
# Git's own view of the tree: no filters, no external programs, no repositories inside it.
OPTIONS = (
    *SAFE,
    "-c", "core.autocrlf=false",
    "-c", "core.bare=false",
    "-c", "core.quotePath=true",
    "-c", "core.excludesFile=/dev/null",
    "-c", "core.attributesFile=/dev/null",
    "-c", "diff.ignoreSubmodules=all",
    "-c", "advice.addEmbeddedRepo=false",
)  # fmt: skip

# Its arguments are git and its options. Added files appear in the patch, ignored ones do not.
# A folder in which the agent began a repository would stand for one commit, or be an error if it
# has none: with any entry below it in the index, git takes it for an ordinary folder, and `add`
# removes that entry. A submodule of the base commit is in the index and refuses the entry.
# git would wait at a pipe for ever, and read the longest list of patterns into memory.
SCRIPT = r"""set -e
patterns() { find . -name ".git[aim]*" ! -type d ! -type l "$@" 2>/dev/null || :; }
patterns ! -type f -exec rm -f {} +
large=$(patterns -size +1024k)
if [ -n "$large" ]; then echo "$large is larger than 1 MiB" >&2; exit 1; fi
test -e "$("$@" rev-parse --git-path index)" || "$@" read-tree refs/heads/base
empty=$("$@" hash-object -t blob --stdin </dev/null)
find . -mindepth 2 -name .git -prune -exec sh -c '
    entry=$1,${2#./}; shift 2
    "$@" update-index --add --cacheinfo "100644,${entry%/.git}/-" || :
' sh "$empty" {} "$@" \; 2>/dev/null || :  # a folder may be unreadable
"$@" add --all .
exec "$@" diff --cached --binary --full-index --no-ext-diff --no-textconv --no-color \
    --src-prefix=a/ --dst-prefix=b/ refs/heads/base --
"""


def patch(workspace: Workspace, *, jailed: bool, watch: Callable[[], str] = lambda: "") -> bytes:
    """The changes since the base commit as a git patch, binary files and modes included.

    git runs in a jail without network: the files that it reads are the agent's. Raises GitFailed
    when there is no patch, for example because it would be larger than 64 MiB, or because `watch`
    gives a reason to stop: git copies what is new.
    """
    # Left by a run whose supervisor was killed at this point; runs of a workspace take turns.
    (workspace.base / "index.lock").unlink(missing_ok=True)
    confinement = jail.confine(workspace.folder, jailed=jailed)
    base = BASE if jailed else str(workspace.base)
    git = ["git", *OPTIONS, f"--git-dir={base}", f"--work-tree={confinement.code.inside}"]
    command = jail.command(
        confinement,
        ["sh", "-c", SCRIPT, "sh", *git],
        writable=[jail.Mount(workspace.base, BASE)],
        network=False,
    )
    variables = jail.environment(confinement, os.environ)
    variables |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    try:
        return _output(command, variables, workspace.code, watch)
    finally:
        for partial in workspace.base.glob("objects/*/tmp_*"):  # git was killed while it wrote it
            partial.unlink(missing_ok=True)


def _output(
    command: list[str], variables: dict[str, str], folder: Path, watch: Callable[[], str]
) -> bytes:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with ProcessGroup(
            command, folder=folder, variables=variables, stdout=output, stderr=errors
        ) as group:
            deadline, status = time.monotonic() + GIT_SECONDS, None
            while status is None:
                _check(deadline, output, watch)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = group.process.wait(LOOK_SECONDS)
        if status:
            errors.seek(0)
            lines = errors.read(100_000).decode("utf-8", "replace").strip().splitlines()
            raise GitFailed(lines[-1] if lines else f"git exited with status {status}")
        _check(deadline, output, lambda: "")
        output.seek(0)
        return output.read()


def _check(deadline: float, output: IO[bytes], watch: Callable[[], str]) -> None:
    """Raise GitFailed if git takes too long, prints too much or fills the disk."""
    if time.monotonic() > deadline:
        raise GitFailed(f"git took longer than {GIT_SECONDS} s")
    if os.fstat(output.fileno()).st_size > LARGEST_PATCH:
        raise GitFailed("the changes are larger than 64 MiB")
    if problem := watch():
        raise GitFailed(problem)
