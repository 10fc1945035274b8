"""Bringing new commits of the user's repository into a workspace, below what the agent did there.

git merges them in the jail: the agent's repository and files are hostile. Afterwards the changes
of the task are those to the new commit.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ....system import git
from ....system.git import SAFE
from ..sandbox import jail
from ..sources.lenders import UPLOAD_PACK
from . import changes
from .workspace_folder import AUTHOR, SYNCED, Workspace

BUNDLE = "bundle"
# After `changes.ADD`, in the agent's working tree. `g` is git there. `taken` is the tree that the
# user has applied and committed, if any: where that was edited, the user's version counts. First
# comes everything that can fail.
MERGE = rf"""
own() {{
    env -u GIT_INDEX_FILE -u GIT_OBJECT_DIRECTORY -u GIT_ALTERNATE_OBJECT_DIRECTORIES \
        git {shlex.join((*SAFE, *AUTHOR))} "$@"
}}
listed() {{ head -n 5 "$1" | paste -sd, - | sed 's/,/, /g'; }}
merged() {{
    "$@" > "$SCRATCH/merged" && sed -n 1p "$SCRATCH/merged" && return
    test $? = 1 || exit 1
    echo "conflicts in $(sed 1d "$SCRATCH/merged" | listed -)" >&2
    exit 1
}}
how="merge-tree --write-tree --name-only --no-messages"
old=$(g rev-parse refs/heads/base) new=$(g rev-parse refs/sync) target=
committed() {{ g {shlex.join(AUTHOR)} commit-tree -m . "$1"; }}
base=$old mine=$(committed "$tree")
if [ -n "$taken" ] && ! g $how --merge-base="$base" "$mine" "$new" > "$SCRATCH/merged"; then
    base=$(committed "$taken^{{tree}}")
fi
result=$(merged g $how --merge-base="$base" "$mine" "$new")
g diff-tree -r --name-only --diff-filter=A -z "$tree" "$result" | xargs -0 -r sh -c '
    for file; do if [ -e "$file" ] || [ -L "$file" ]; then printf "%s\\n" "$file"; fi; done
' sh > "$SCRATCH/there"
if [ -s "$SCRATCH/there" ]; then
    echo "ignored files are where they have others: $(listed "$SCRATCH/there")" >&2
    exit 1
fi
if head=$(own rev-parse --quiet --verify 'HEAD^{{commit}}'); then
    own bundle unbundle "$SCRATCH/{BUNDLE}" > "$SCRATCH/unbundled"
    target=$new
    if [ "$head" != "$old" ]; then
        both=$(own $how --merge-base="$old" "$head" "$new") || both="$new^{{tree}}"
        target=$(own commit-tree -p "$head" -p "$new" -m "Merge new commits" "$both")
    fi
fi
g read-tree -m -u "$tree" "$result"
if [ -n "$target" ]; then
    own update-ref HEAD "$target"
    own read-tree "$target"
    own update-index -q --refresh > "$SCRATCH/refreshed" || :
fi
"""


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
    git.check_repository(str(place))
    ref, base = branch or "HEAD", ["--git-dir", str(workspace.base)]
    old = git.line([*base, "rev-parse", "refs/heads/base"])
    if git.line(["-C", str(place), "rev-parse", "--verify", f"{ref}^{{commit}}"]) == old:
        return False
    for left in workspace.base.glob("*.lock"):  # of a git that was killed: none is at work there
        left.unlink(missing_ok=True)
    words = ["fetch", "--quiet", "--depth=1"]
    words += ["--upload-pack", UPLOAD_PACK, str(place)]
    with git.watched(watch):
        words += [f"+{ref}:refs/sync"]
        git.run([*base, *words], timeout=changes.GIT_SECONDS)
    new = git.line([*base, "rev-parse", "refs/sync"])
    with changes.scratch_of(workspace) as scratch:
        since = [f"^{old}"] if _is_after(place, old, new) else []
        bundle = ["bundle", "create", "--quiet", str(scratch / BUNDLE), *since, ref]
        with git.watched(watch):
            git.run(bundle, place, timeout=changes.GIT_SECONDS)
        layout = jail.layout_of(workspace.folder, jailed=True)
        words = changes.git_of(layout, workspace, layout.code.inside)
        taken = (f"refs/runs/{each}" for each in applied if _is_after(place, applied[each], new))
        kept = [*filter(partial(git.has, workspace.base), taken)]
        head = f'g() {{ {shlex.join(words)} "$@"; }}\ntaken={kept[-1] if kept else ""}\n'
        script = ["sh", "-c", head + changes.ADD + MERGE, "sh", *words]
        changes.output(layout, script, workspace, scratch, watch)
    names = [] if git.has(workspace.base, SYNCED) else [(SYNCED, old)]
    for name, commit in (*names, (f"refs/base/{run}", new), ("refs/heads/base", new)):
        git.run([*base, "update-ref", name, commit])
    return True


def _is_after(place: Path, old: str, new: str) -> bool:
    """Whether a commit was made on top of another one."""
    return old != new and git.is_ancestor(place, old, new)
