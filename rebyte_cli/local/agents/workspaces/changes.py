"""What runs changed: `code/` compared with the commit that the workspace began with.

`base.git` keeps the tree that each run left as `refs/runs/ID`: what any of them changed can be told
later. git reads the agent's files in a jail, which shows `base.git` read-only: what is new in the
tree leaves it as one pack, which git verifies outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import IO

from ....system import git
from ....system.deadline import Deadline
from ....system.git import SAFE, GitFailed
from .. import agent_files
from ..exposed import Mount
from ..sandbox import jail
from ..sandbox.jailed_program import JailedProgram
from .workspace_folder import AUTHOR, Workspace

LARGEST_PATCH = 64 * 1024 * 1024
TOO_LARGE = "the changes are larger than 64 MiB"
LARGEST_LIST = 64 * 1024 * 1024  # of the names of files that are left out
# What a patch does not cover, by the list of its names that the script leaves.
LEFT_OUT = {
    "odd": "what became a pipe, a socket or a device",
    "modules": "what is in the submodules",
    "new": "the submodules that were moved or added",
    "linked": "what is in the linked work trees",
    "commits": "commits that HEAD does not have",
    "unread": "commits and ignored files of a repository that git cannot read",
}
MOST_NAMES = 5
GIT_SECONDS = 300
OWN_SECONDS = 20  # for what the agent's repository says of itself
LOOK_SECONDS = 0.2
BASE = "/base.git"
SCRATCH = "/scratch"
INDEX = "index"
FORCED = "forced"  # the names of files that are in the index only because the agent's git has them
FORM = (
    "--binary --full-index --no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/"
    " --ignore-submodules=none"
)
NO_TREE = 4  # the status of the script when it has nothing to compare
SETTINGS = git.IN_JAIL | {"LC_ALL": "C", "FORM": FORM}
# Git's own view of the tree: no filters, no external programs, no repositories inside it.
OPTIONS = (
    *SAFE,
    "-c", "core.autocrlf=false",
    "-c", "core.bare=false",
    "-c", "core.quotePath=true",
    "-c", "core.excludesFile=/dev/null",
    "-c", "core.attributesFile=/dev/null",
    "-c", "advice.addEmbeddedRepo=false",
)  # fmt: skip

# git in the agent's repository.
OWN = rf"""
limit=
own() {{
    $limit env -u GIT_INDEX_FILE -u GIT_OBJECT_DIRECTORY -u GIT_ALTERNATE_OBJECT_DIRECTORIES \
        git {shlex.join((*SAFE, *AUTHOR))} "$@"
}}
"""
# Its arguments are git and its options. Added files appear in the patch, ignored ones do not, but
# for those that the agent has told git to track (`add -f`, or `mv` into an ignored folder).
# A folder in which the agent began a repository would stand for one commit, or be an error if it
# has none: with any entry below it in the index, git takes it for an ordinary folder, and `add`
# removes that entry, which has a name that no agent can know. It replaces a file or a link of the
# base commit in the place of the folder, or above. Submodules of that commit take their places back
# and are left out: git would run `status` there, with the filters that their configuration names.
# One without a folder in its place is gone, as it is for `git status`. Whatever else git took for a
# submodule is named like them.
# git would wait at a pipe for ever, and read the longest list of patterns into memory.
# No deeper path is short enough for git; `find` takes time with the square of the depth.
# Where a pipe, a socket or a device is in a file's place, git would fail: the index keeps the file.
# What git cannot read of the agent's repository within a time is named. What only its index brought
# in is taken back first: it may say otherwise now. Linked work trees of it would be second copies:
# they are taken out at the end, for git takes no name in a submodule.
# With status 1, git has added the rest: it ignores a place that it is told to leave out.
# git reads every file: a program can change one without a trace in its times, through memory on
# tmpfs, and on ext4 by what defragments it. What the index keeps is only what git tracks.
# `tree` is written last: there is a pack if there is a tree.
# What git may not read would be missing, often without a word. Of a file's mode, git keeps only
# whether its owner may execute it, and that stays.
# The patch is made without attributes (git 2.41): the agent's `*.py -diff` would hide what it says.
# It is made without an index too: git would take what that knows as unchanged from the file, as the
# file is, and not as it is stored.
ADD = (
    rf"""set -e{OWN}
asked() (
    if command -v timeout > /dev/null; then limit="timeout --foreground {OWN_SECONDS}"; fi
    own --git-dir=.git --work-tree=. "$@" 2>/dev/null && exit
    printf '.git\0' > "$SCRATCH/unread"
    exit 1
)
"""
    + r"""
find . -maxdepth 2048 -name .git -prune -o -type d ! -perm -700 -exec chmod u+rwx {} \; \
    -o -type f ! -perm -400 -exec chmod u+r {} + 2>/dev/null || :
patterns() { find . -maxdepth 2048 -name ".git[aim]*" ! -type d ! -type l "$@" 2>/dev/null || :; }
patterns ! -type f -exec rm -f {} +
large=$(patterns -size +1024k)
if [ -n "$large" ]; then echo "$large is larger than 1 MiB" >&2; exit 1; fi
if [ -e "$SCRATCH/index" ]; then "$@" read-tree "$("$@" write-tree)"
else "$@" read-tree refs/heads/base
fi
if [ ! -e .git ] && [ ! -L .git ]; then :
elif asked ls-files -z > "$SCRATCH/own"; then
    "$@" update-index -z --force-remove --stdin 0<> "$SCRATCH/forced"
else rm "$SCRATCH/own"
fi
empty=$("$@" hash-object -t blob --stdin </dev/null)
printf '.\0' > "$SCRATCH/paths"
{ "$@" ls-tree -r -z refs/heads/base; "$@" ls-files --stage -z; } | xargs -0 sh -c '
    for entry; do
        case $entry in 160000*) place=${entry#*	} above=$place ;; *) continue ;; esac
        while [ -d "$above" ] && [ ! -L "$above" ]; do
            case $above in */*) above=${above%/*}; continue ;; esac
            printf "%s\\0" "$entry"
            printf ":(exclude,literal)%s\\0" "$place" >&3
            break
        done
    done
' sh > "$SCRATCH/known" 3>> "$SCRATCH/paths"
linked=$(cd -P .git/worktrees 2>/dev/null && pwd -P) || linked=/dev/null
: > "$SCRATCH/linked"
find . -mindepth 2 -maxdepth 2048 -name .git -prune -exec sh -c '
    linked=$1 entry=$2,${3#./} place=${3%/.git}; shift 3
    if [ -f "$place/.git" ] && [ ! -L "$place/.git" ]; then
        leads=$(head -c 5000 "$place/.git")
        case $(cd -P "$place" && cd -P -- "${leads#gitdir: }" && pwd -P) in "$linked"/*)
            printf "%s\\0" "${place#./}" >> "$SCRATCH/linked"
        esac
    fi
    "$@" update-index --add --replace --cacheinfo "100644,${entry%.git}$PLACEHOLDER" || :
' sh "$linked" "$empty" {} "$@" \; 2>/dev/null || :  # a folder may be unreadable
"$@" update-index --add --replace -z --index-info < "$SCRATCH/known"
find . -maxdepth 2048 -name .git -prune -o ! -type f ! -type d ! -type l \
    -exec "$@" --literal-pathspecs ls-files -z -- {} + > "$SCRATCH/odd" 2>/dev/null || :
xargs -0 sh -c 'for file; do printf ":(exclude,literal)%s\\0" "$file"; done' sh \
    < "$SCRATCH/odd" >> "$SCRATCH/paths"
"$@" add --all --pathspec-from-file="$SCRATCH/paths" --pathspec-file-nul || [ $? = 1 ]
xargs -0 -r "$@" --literal-pathspecs ls-files --stage -z -- < "$SCRATCH/linked" |
    sed -z '/^160000/d; s/^[^\t]*\t//' | "$@" update-index -z --force-remove --stdin
if [ -e "$SCRATCH/own" ]; then
    "$@" ls-files -z | sort -z > "$SCRATCH/tracked"
    sort -zu "$SCRATCH/own" | comm -z -13 "$SCRATCH/tracked" - |
        xargs -0 -r "$@" --literal-pathspecs ls-files -z --others --ignored --exclude-standard -- |
        sed -z '/\/$/d' > "$SCRATCH/forced"
    "$@" --literal-pathspecs add --force --pathspec-from-file="$SCRATCH/forced" --pathspec-file-nul
fi
tree=$("$@" write-tree)
"""
)
# Where a submodule was moved or added, git keeps its place if there is a file: then, it is an
# ordinary folder. Otherwise `.gitmodules` alone knows it.
# A branch, the stash, HEAD of a linked work tree, or one that was left while it was detached, is
# named if it has commits that neither HEAD, a remote nor `base.git` knows, unless its files are
# those of the patch.
SCRIPT = rf"""{ADD}
"$@" ls-files --stage -z | xargs -0 sh -c '
    for entry; do
        case $entry in 160000*) place=${{entry#*	}} ;; *) continue ;; esac
        if [ -n "$(ls -A -- "$place" 2>/dev/null)" ]; then printf "%s\\0" "$place"; fi
    done
' sh > "$SCRATCH/modules"
"$@" config --blob "$tree:.gitmodules" --no-includes -z \
    --get-regexp "^submodule\..*\.path$" 2>/dev/null |
    xargs -0 sh -c '
        for entry; do
            place=${{entry#*
}}
            if [ -d "$place" ] && [ -z "$(ls -A -- "$place")" ]; then printf "%s\\0" "$place"; fi
        done
    ' sh | xargs -0 -I {{}} sh -c '
        if known=$("$@" 2>/dev/null) && [ -z "$known" ]; then
            for place; do :; done
            printf "%s\\0" "$place"
        fi
    ' sh "$@" --literal-pathspecs ls-files -- {{}} > "$SCRATCH/new"
if [ -e "$SCRATCH/own" ]; then
    {{
        asked for-each-ref --format="%(objectname) %(refname) %(tree)" refs/heads refs/stash
        asked worktree list --porcelain -z |
            sed -zn "/^HEAD /{{h; n; /^detached/{{g; s/HEAD \(.*\)/\1 \1/p}}}}" | tr "\\0" "\\n"
        asked log -g --ignore-missing --format=%gs HEAD -- |
            sed -n "s/^checkout: moving from \([0-9a-f]\{{40,64\}}\) to .*/\1 \1/p"
    }} | sort > "$SCRATCH/tips"
    {{
        cut -d " " -f 1 "$SCRATCH/tips"
        sed -n "s/ .* $tree$//p" "$SCRATCH/tips" | sed "s/^/^/"
        "$@" for-each-ref --format="^%(objectname)"
    }} | asked rev-list --ignore-missing --stdin --not HEAD --remotes -- |
        sort | join -o 2.2 - "$SCRATCH/tips" | sort -u | tr "\\n" "\\0" |
        sed -z "s,^refs/heads/,,; s,^refs/stash$,a stash,; {MOST_NAMES + 1}q" \
        > "$SCRATCH/commits"
fi
echo "$tree" | "$@" pack-objects -q --revs --local --non-empty --window=0 --compression=1 \
    --stdout > "$SCRATCH/pack"
echo "$tree" > "$SCRATCH/tree"
GIT_ATTR_SOURCE=$("$@" hash-object -t tree --stdin </dev/null)
export GIT_ATTR_SOURCE GIT_INDEX_FILE="$SCRATCH/none"
exec "$@" diff $FORM refs/heads/base "$tree" --
"""

# Its arguments are the runs of the workspace in turn, `+` before those that are wanted. Without a
# tree, what a run changed counts as its successor's, so the last one that is wanted needs a tree.
# The changes of others in between are left out: what follows is applied to the tree without them.
# So are commits that were brought in after a run (see sync.py): if all runs before are wanted,
# their changes are those to the new base. How they are merged is said by the attributes of the base
# (git 2.41), not by those that a run has left. It begins in an empty folder of the scratch: even
# with --cached, git checks out a file that the patch adds but the index has.
RUNS_SCRIPT = r"""set -e
GIT_ATTR_SOURCE=$(g hash-object -t tree --stdin </dev/null)
export GIT_ATTR_SOURCE
tree() { g rev-parse --quiet --verify "$1^{tree}"; }
base=$(tree refs/start || tree refs/heads/base) from= is_whole=
before=$base
for run; do
    case $run in +*) is_whole=; esac
    if new=$(tree "refs/runs/${run#+}"); then
        case $run in +*)
            is_whole=1
            : "${from:=$before}"
            if [ ! -e ../index ] || [ "$(g write-tree)" = "$before" ]; then g read-tree "$new"
            else
                g diff $FORM "$before" "$new" > ../patch
                find . -mindepth 1 -delete
                test ! -s ../patch || (
                    GIT_ATTR_SOURCE=$base
                    g apply --cached --3way --whitespace=nowarn ../patch
                )
            fi
        esac
        before=$new
    fi
    if synced=$(tree "refs/base/${run#+}") && new=$(tree "refs/after/${run#+}"); then
        if [ "$from" = "$base" ] && [ "$(g write-tree)" = "$before" ]; then
            g read-tree "$new"
            from=$synced
        fi
        base=$synced before=$new
    fi
done
test -n "$is_whole" || exit 4
g diff $FORM "$from" "$(g write-tree)"
"""


class NoTree(Exception):
    """There is no tree to compare."""


def patch(
    workspace: Workspace,
    run: str,
    *,
    jailed: bool,
    watch: Callable[[], str] = lambda: "",
    tell: Callable[[str], object] = lambda note: None,
) -> bytes:
    """The changes since the base commit as a git patch, binary files and modes included.

    The tree is kept for `of_runs` under the id of the `run`: as what it left, or as what there was
    later if commits were brought in after it. git runs in a jail without network:
    the files that it reads are the agent's. Raises GitFailed when there is no patch, for example
    because it would be larger than 64 MiB, or because `watch` gives a reason to stop: git copies
    what is new. What the patch does not cover is said to `tell`.
    """
    with scratch_of(workspace) as scratch:
        layout = jail.layout_of(workspace.folder, jailed=jailed)
        words = ["sh", "-c", SCRIPT, "sh", *git_of(layout, workspace, layout.code.inside)]
        try:
            found = output(layout, words, workspace, scratch, watch)
            for name, what in LEFT_OUT.items():
                if names := agent_files.read(scratch, name, LARGEST_LIST):
                    tell(_left_out(what, names.decode("utf-8", "replace").split("\0")[:-1]))
            return found
        finally:
            _keep(workspace, scratch, run)


@contextlib.contextmanager
def scratch_of(workspace: Workspace) -> Iterator[Path]:
    """An empty folder for git's index, objects and more, while the block runs."""
    with agent_files.new_folder(workspace.folder, "patch") as scratch:
        (scratch / "objects").mkdir(mode=0o700)
        for name in (INDEX, FORCED):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(workspace.base / name, scratch / name, follow_symlinks=False)
        yield scratch


def _left_out(what: str, names: list[str]) -> str:
    """A sentence about files or folders that were left out."""
    shown = [each if each.isprintable() else json.dumps(each) for each in names[:MOST_NAMES]]
    return f"changes.patch leaves out {what}: {', '.join(shown)}{', …' * bool(names[MOST_NAMES:])}"


def _keep(workspace: Workspace, scratch: Path, run: str) -> None:
    """Take the tree that git left in `scratch` into `base.git`, with what is new in it.

    All names are fixed, and no link in their place is followed. Raises GitFailed.
    """
    tree = (agent_files.read(scratch, "tree", 100) or b"").decode("ascii", "replace").strip()
    if not re.fullmatch("[0-9a-f]{40,64}", tree):
        return
    keep_pack(workspace, scratch, tree)
    own = git.bare(workspace.base)
    kind = "after" if git.has(workspace.base, f"refs/base/{run}", own) else "runs"
    base = ["--git-dir", str(workspace.base)]
    git.run([*base, "update-ref", f"refs/{kind}/{run}", tree])
    keep_index(workspace, scratch)


def keep_pack(workspace: Workspace, scratch: Path, name: str) -> None:
    """Take the pack that git left in `scratch`, if any, into `base.git`. Raises GitFailed."""
    if _size(scratch / "pack"):
        pack = workspace.base / "objects/pack" / f"pack-{name}.pack"
        os.replace(scratch / "pack", pack)
        try:
            words = ["--git-dir", str(workspace.base), "index-pack", str(pack)]
            git.run(words, timeout=GIT_SECONDS)
        except GitFailed:
            pack.unlink()
            raise


def keep_index(workspace: Workspace, scratch: Path) -> None:
    """Take the index that git left in `scratch` into `base.git`: what it tracks, though ignored."""
    if _size(scratch / INDEX):
        os.replace(scratch / INDEX, workspace.base / INDEX)
    with contextlib.suppress(FileNotFoundError):
        os.replace(scratch / FORCED, workspace.base / FORCED)


def keep_forced(workspace: Workspace) -> None:
    """Track from now on what the agent's git did, whose index is about to be a new one."""
    (workspace.base / FORCED).unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a regular file; 0 for anything else."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def of_runs(
    workspace: Workspace, runs: Iterable[str], wanted: Container[str], *, jailed: bool
) -> bytes | None:
    """What those of `runs` that are wanted changed, as a patch; None if the last has left no tree.

    `runs` are all of the workspace, oldest first. Raises GitFailed, also when changes build on
    those of a run in between that is not wanted.
    """
    with tempfile.TemporaryDirectory(prefix="rebyte-") as folder:
        for name in ("objects", "tree"):
            (Path(folder) / name).mkdir()
        layout = jail.layout_of(workspace.folder, jailed=jailed)
        # None of the agent's folders, which a workspace that is pruned does not have.
        empty = Path(folder) / "tree"
        layout = layout._replace(
            code=layout.code._replace(outside=empty), home=layout.home._replace(outside=empty)
        )
        scratch = SCRATCH if jailed else folder
        words = shlex.join(git_of(layout, workspace, f"{scratch}/tree"))
        script = f'cd "$SCRATCH/tree"\ng() {{ {words} "$@"; }}\n{RUNS_SCRIPT}'
        marked = (f"+{run}" if run in wanted else run for run in runs)

        def watch() -> str:  # what one run changed may be more than all of them together
            return TOO_LARGE if _size(Path(folder) / "patch") > LARGEST_PATCH else ""

        line = ["sh", "-c", script, "sh", *marked]
        try:
            return output(layout, line, workspace, Path(folder), watch)
        except NoTree:
            return None


def git_of(layout: jail.JailLayout, workspace: Workspace, tree: str) -> list[str]:
    """git with its options, for the working tree at `tree`."""
    base = BASE if layout.jailed else workspace.base
    return ["git", *OPTIONS, f"--git-dir={base}", f"--work-tree={tree}"]


def output(
    layout: jail.JailLayout,
    words: list[str],
    workspace: Workspace,
    folder: Path,
    watch: Callable[[], str],
) -> bytes:
    """What a script prints in the jail, where git can write to the agent's files and to `folder`.

    The index, new objects, and all else that git writes is there.
    """
    jailed = layout.jailed
    base, scratch = (BASE, SCRATCH) if jailed else (str(workspace.base), str(folder))
    command = jail.command(
        layout,
        git.limited(words),
        readable=[Mount(workspace.base, BASE)],
        writable=[Mount(folder, SCRATCH)],
        network=False,
    )
    variables = jail.environment(layout, os.environ) | SETTINGS
    variables |= {
        "SCRATCH": scratch,
        "PLACEHOLDER": os.urandom(8).hex(),
        "GIT_INDEX_FILE": f"{scratch}/{INDEX}",
        "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": git.quoted(f"{base}/objects"),
    }
    program = JailedProgram(layout, command, variables)
    with tempfile.TemporaryFile() as output:
        with (
            git.Pipe(git.LONGEST_STDERR) as errors,
            program.start(stdout=output, stderr=errors.into) as group,
        ):
            errors.start()
            deadline, status = Deadline(GIT_SECONDS), None
            while status is None:
                _check(deadline, output, watch)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = group.process.wait(LOOK_SECONDS)
        if status == NO_TREE:
            raise NoTree
        if status:
            said = errors.kept.decode("utf-8", "replace").strip()
            lines = said.splitlines() or [f"git exited with status {status}"]
            # The first one has the cause, such as a name that git does not allow.
            reason = next((line for line in lines if line.startswith("error: ")), lines[-1])
            raise GitFailed(git.lack_of_memory(said) or reason.removeprefix("error: "))
        _check(deadline, output, lambda: "")
        output.seek(0)
        return output.read()


def _check(deadline: Deadline, output: IO[bytes], watch: Callable[[], str]) -> None:
    """Raise GitFailed if git takes too long, prints too much or fills the disk."""
    if deadline.has_passed:
        raise GitFailed(f"git took longer than {GIT_SECONDS} s")
    if os.fstat(output.fileno()).st_size > LARGEST_PATCH:
        raise GitFailed(TOO_LARGE)
    if problem := watch():
        raise GitFailed(problem)
