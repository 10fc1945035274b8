"""What a run changed: `code/` compared with the commit that the workspace began with."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from ...system.git import SAFE, GitFailed
from ...system.process_group import ProcessGroup
from . import jail
from .workspace import Workspace

LARGEST_PATCH = 64 * 1024 * 1024
GIT_SECONDS = 300
BASE = "/base.git"
# Git's own view of the tree: no filters, no external programs, no repositories inside it.
OPTIONS = (
    *SAFE,
    "-c", "core.autocrlf=false",
    "-c", "core.bare=false",
    "-c", "core.quotePath=true",
    "-c", "diff.ignoreSubmodules=all",
    "-c", "advice.addEmbeddedRepo=false",
)  # fmt: skip

# Its arguments are git and its options. Added files appear in the patch, ignored ones do not.
# A folder in which the agent began a repository would stand for one commit, or be an error if it
# has none: with any entry below it in the index, git takes it for an ordinary folder, and `add`
# removes that entry. A submodule of the base commit is in the index and refuses the entry.
SCRIPT = r"""set -e
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


def patch(workspace: Workspace, *, jailed: bool) -> bytes:
    """The changes since the base commit as a git patch, binary files and modes included.

    git runs in a jail without network: the files that it reads are the agent's. Raises GitFailed
    when there is no patch, for example because it would be larger than 64 MiB.
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
    return _output(command, variables, workspace.code)


def _output(command: list[str], variables: dict[str, str], folder: Path) -> bytes:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with ProcessGroup(
            command, folder=folder, variables=variables, stdout=output, stderr=errors
        ) as group:
            try:
                status = group.process.wait(GIT_SECONDS)
            except subprocess.TimeoutExpired:
                raise GitFailed(f"git took longer than {GIT_SECONDS} s") from None
        if status:
            errors.seek(0)
            lines = errors.read(100_000).decode("utf-8", "replace").strip().splitlines()
            raise GitFailed(lines[-1] if lines else f"git exited with status {status}")
        if output.tell() > LARGEST_PATCH:
            raise GitFailed("the changes are larger than 64 MiB")
        output.seek(0)
        return output.read()
