"""Bringing new commits of the user's repository into a workspace, below what the agent did there.

git merges them in the jail: the agent's repository and files are hostile. Afterwards the changes
of the task are those to the new commit. What is about to change is written down first, where no
agent can write: if this is killed, `complete_merge` does it again, whatever of it was done.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ....system import git
from ....system.files import sync_folder, write_private
from ....system.git import GitFailed
from ..sandbox import jail
from ..sandbox.jail_group import end_rest
from ..sources.lenders import UPLOAD_PACK
from . import changes
from .workspace_folder import AUTHOR, SAVED, SYNCED, Workspace

BUNDLE = "bundle"
# In the folder of the workspace: the `_MergePlan` of a merge that may be there in part.
PLAN = "sync"
# After `changes.ADD`, in the agent's working tree. `g` and `"$@"` are git there. `new` is the new
# commit, and `taken` the tree that the user has applied, if there are commits since: a file in
# conflict is merged as a change of that, so that the user's version counts. What is not in conflict
# is not: it may not be committed yet. It does everything that can fail, and changes nothing; what
# is new of the trees is left as one pack. What the user has committed says how to merge (git 2.41):
# the agent's `* merge=union` would hide conflicts. To write a file, git would remove what is
# ignored in its place, or in that of a folder above it, and the folder of a submodule.
MERGE = rf"""
listed() {{ head -n 5 "$1" | paste -sd, - | sed 's/,/, /g'; }}
merged() {{
    "$@" > "$SCRATCH/merged" && sed -n 1p "$SCRATCH/merged" && return
    test $? = 1 || exit 1
    printf 'conflicts in %s\n' "$(sed 1d "$SCRATCH/merged" | listed -)" >&2
    exit 1
}}
how="merge-tree --write-tree --name-only --no-messages"
old=$(g rev-parse refs/heads/base) target=
export GIT_ATTR_SOURCE="$new"
committed() {{ g {shlex.join(AUTHOR)} commit-tree -m . "$1"; }}
base=$old mine=$(committed "$tree")
if [ -n "$taken" ] && ! g $how -z --merge-base="$base" "$mine" "$new" > "$SCRATCH/merged"; then
    sed -zi 1d "$SCRATCH/merged"
    base=$(
        export GIT_INDEX_FILE="$SCRATCH/base"
        g read-tree "$old"
        g update-index -z --force-remove --stdin < "$SCRATCH/merged"
        xargs -0 -r "$@" ls-tree -r -z --full-tree "$taken" -- < "$SCRATCH/merged" |
            g update-index -z --add --replace --index-info
        committed "$(g write-tree)"
    )
fi
result=$(merged g $how --merge-base="$base" "$mine" "$new")
g diff-tree -r --name-only --diff-filter=A -z "$tree" "$result" | xargs -0 -r sh -c '
    for file; do
        if [ -e "$file" ] || [ -L "$file" ]; then printf "%s\\n" "$file"; fi
        while [ "$file" != "${{file%/*}}" ]; do
            file=${{file%/*}}
            if [ -e "$file/." ] && [ ! -L "$file" ]; then continue; fi
            if [ -e "$file" ] || [ -L "$file" ]; then printf "%s\\0" "$file" >&3; fi
        done
    done
' sh > "$SCRATCH/there" 3> "$SCRATCH/above"
g diff-tree -r --name-only --diff-filter=T -z "$tree" "$result" | xargs -0 -r sh -c '
    for file; do
        if [ ! -L "$file" ] && [ -n "$(ls -A -- "$file/" 2>/dev/null)" ]; then
            printf "%s\\n" "$file"
        fi
    done
' sh >> "$SCRATCH/there"
sort -zu "$SCRATCH/above" | xargs -0 -r -I {{}} sh -c '
    if [ -z "$("$@")" ]; then for file; do :; done; printf "%s\\n" "$file"; fi
' sh "$@" --literal-pathspecs ls-files -- {{}} >> "$SCRATCH/there"
if [ -s "$SCRATCH/there" ]; then
    echo "ignored files or submodules are where they have others: $(listed "$SCRATCH/there")" >&2
    exit 1
fi
head=$(own rev-parse --quiet --verify 'HEAD^{{commit}}') || :
if [ -n "$head" ]; then
    own bundle unbundle "$SCRATCH/{BUNDLE}" > "$SCRATCH/unbundled"
    target=$new
    if [ "$head" != "$old" ]; then
        both=$(own $how --merge-base="$old" "$head" "$new") || both="$new^{{tree}}"
        target=$(own commit-tree -p "$head" -p "$new" -m "Merge new commits" "$both")
    fi
fi
printf '%s\n' "$tree" "$result" |
    g pack-objects -q --revs --local --non-empty --window=0 --compression=1 \
        --stdout > "$SCRATCH/pack"
printf '%s\n' "$tree" "$result" "$head" "$target"
"""
# Its arguments are those of a `_MergePlan`. All of it can be done again after any part of it. No
# git is at work in the agent's repository: its locks are of one that was killed. An index of the
# agent's that git cannot write stays as it is. The disk has the files before the new base is
# recorded.
CHANGE = r"""set -e
tree=$1 result=$2 head=$3 target=$4
if [ -n "$target" ]; then
    for name in index HEAD $(own symbolic-ref -q HEAD); do
        rm -f -- "$(own rev-parse --git-path "$name").lock" || :
    done
    if [ "$(own rev-parse HEAD)" = "$head" ]; then own update-ref HEAD "$target"; fi
    if [ "$(own rev-parse HEAD)" = "$target" ]; then own read-tree "$target" || :; fi
fi
g read-tree -i -m "$tree"
g read-tree --reset -u "$tree" "$result"
if [ -n "$target" ]; then own update-index -q --refresh > "$SCRATCH/refreshed" || :; fi
sync -f . || :
"""


class _MergePlan(NamedTuple):
    """What is changed in a workspace after its run `run`: a file of the user's, never the agent's.

    `base` is the new commit, `tree` what there is in the working tree, `result` what there is to
    be, and `head` and `target` the same of the agent's HEAD; both are empty where that has none.
    """

    run: str
    base: str
    tree: str
    result: str
    head: str
    target: str


def bring(
    workspace: Workspace,
    place: Path,
    branch: str | None,
    run: str,
    applied: Mapping[str, str],
    watch: Callable[[], str],
) -> bool:
    """Merge the commits of `branch`, or HEAD, of the repository at `place`; False if none is new.

    `run` is the last one of the workspace, whose lock is held, and `applied` has those that were
    applied at `place`, each with the commit there at that time. What is not committed in the
    workspace is kept. Raises GitFailed, for a conflict or the reason that `watch` gives to stop,
    and has changed nothing then.
    """
    complete_merge(workspace, watch)
    git.check_repository(str(place))
    ref, base = git.ref_of(place, branch), ["--git-dir", str(workspace.base)]
    if ref is None:
        raise GitFailed(f"the repository {place} has no commit {branch or 'yet'}")
    old = git.line([*base, "rev-parse", "refs/heads/base"])
    if git.commit_of(place, ref) == old:
        return False
    _unlock(workspace)
    words = ["fetch", "--quiet", "--depth=1", "--upload-pack", UPLOAD_PACK]
    with git.watched(watch):
        git.run([*base, *words, str(place), f"+{ref}:refs/sync"], timeout=changes.GIT_SECONDS)
    new = git.line([*base, "rev-parse", "refs/sync^{commit}"])
    with changes.scratch_of(workspace) as scratch:
        since = [f"^{old}"] if _is_after(place, old, new) else []
        bundle = ["bundle", "create", "--quiet", str(scratch / BUNDLE), *since, ref]
        with git.watched(watch):
            git.run(bundle, place, timeout=changes.GIT_SECONDS)
        taken = (f"refs/runs/{each}" for each in applied if _is_after(place, applied[each], new))
        kept = [*filter(partial(git.has, workspace.base), taken)]
        script = f"{changes.ADD}\nnew={new} taken={kept[-1] if kept else ''}\n{MERGE}"
        names = _output(workspace, scratch, script, (), watch)
        found = names.decode("ascii", "replace").split("\n")[:4]
        if not all(re.fullmatch("[0-9a-f]{40,64}|", each) for each in found):
            raise GitFailed("git does not say what it has merged")
        plan = _MergePlan(run, new, *found)
        changes.keep_pack(workspace, scratch, os.urandom(20).hex())
    write_private(workspace.folder / PLAN, "\n".join(plan).encode())
    try:
        _change(workspace, plan, watch)
    except (GitFailed, OSError):
        back = plan._replace(tree=plan.result, result=plan.tree)
        _change(workspace, back._replace(head=plan.target, target=plan.head))
        _forget(workspace)
        raise
    _record(workspace, plan)
    return True


def complete_merge(workspace: Workspace, watch: Callable[[], str] = lambda: "") -> None:
    """Complete what a `bring` that was killed had begun to change in a workspace, if one had.

    No agent has worked there since, and the lock of the last run is held. Raises GitFailed, and
    OSError where what it ran cannot be ended; then, no agent may work there.
    """
    try:
        content = (workspace.folder / PLAN).read_bytes()
    except FileNotFoundError:
        return
    end_rest(workspace.folder, wait=True)
    plan = _MergePlan(*content.decode().split("\n"))
    _change(workspace, plan, watch)
    _record(workspace, plan)


def _change(workspace: Workspace, plan: _MergePlan, watch: Callable[[], str] = lambda: "") -> None:
    """Change the working tree and the agent's repository. Raises GitFailed and OSError."""
    with changes.scratch_of(workspace) as scratch:
        _output(workspace, scratch, CHANGE, plan[2:], watch)
        changes.keep_index(workspace, scratch)
    changes.keep_forced(workspace)


def _output(
    workspace: Workspace,
    scratch: Path,
    script: str,
    arguments: tuple[str, ...],
    watch: Callable[[], str],
) -> bytes:
    """What a script prints in the jail, where `g` and `own` are git on `base.git` and the agent's.

    Without `arguments`, it has those of `changes.ADD`.
    """
    layout = jail.layout_of(workspace.folder, jailed=True)
    words = changes.git_of(layout, workspace, layout.code.inside)
    script = f'g() {{ {shlex.join(words)} "$@"; }}\n{changes.OWN}{script}'
    line = ["sh", "-c", script, "sh", *(arguments or words)]
    return changes.output(layout, line, workspace, scratch, watch)


def _record(workspace: Workspace, plan: _MergePlan) -> None:
    """Record that the changes of the task are those to the new commit from now on."""
    _unlock(workspace)
    base = ["-c", "core.fsync=reference", "--git-dir", str(workspace.base)]
    if not git.has(workspace.base, SYNCED, git.bare(workspace.base)):
        old = git.line([*base, "rev-parse", "refs/heads/base"])
        git.run([*base, "update-ref", SYNCED, old])
    for name, found in (
        (f"refs/base/{plan.run}", plan.base),
        (f"refs/after/{plan.run}", plan.result),
        ("refs/heads/base", plan.base),
    ):
        git.run([*base, "update-ref", name, found])
    (workspace.folder / SAVED).unlink(missing_ok=True)  # the patch was one to the old base
    _forget(workspace)


def _forget(workspace: Workspace) -> None:
    (workspace.folder / PLAN).unlink(missing_ok=True)
    sync_folder(workspace.folder)


def _unlock(workspace: Workspace) -> None:
    """Remove the locks of a git in `base.git` that was killed: none is at work there."""
    for pattern in ("*.lock", "refs/**/*.lock"):
        for left in workspace.base.glob(pattern):
            left.unlink(missing_ok=True)


def _is_after(place: Path, old: str, new: str) -> bool:
    """Whether a commit was made on top of another one."""
    return old != new and git.is_ancestor(place, old, new)
