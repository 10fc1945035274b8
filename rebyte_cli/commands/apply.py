"""Apply the changes that a task made to the repository here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..app import App
from ..errors import BadUsage, Interrupted
from ..output.records import CHANGE, RecordList
from ._base import define
from ._options import chosen_task, refuse, task_argument
from ._prompts import confirm, yes_option

if TYPE_CHECKING:
    from ..tasks.file_changes import FileChange
    from ..tasks.patch import PatchSource
    from ..tasks.prepared_patch import PreparedPatch

SHORT = 10  # characters of a commit's id that people are shown


@define("apply", kind=CHANGE)
@task_argument
@click.argument("paths", metavar="[-- PATH…]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Apply also what was applied here before.")
@click.option("--branch", metavar="NAME", help="Make a branch with one commit; touch no files.")
@click.option("--commit", "commits", is_flag=True, help="Commit what was applied, and only that.")
@click.option("-m", "--message", metavar="TEXT", help="The commit's message, not the task's title.")
@click.option(
    "--force",
    is_flag=True,
    help="Apply even if there are uncommitted changes; with --branch, replace the branch.",
)
@yes_option
def command(
    app: App,
    task: str,
    paths: tuple[str, ...],
    branch: str | None,
    message: str | None,
    **flags: bool,
) -> RecordList:
    """Apply the changes that TASK made to the repository here.

    After a follow-up, applies only what is new since the last `apply` of the task in this
    repository; --all applies everything. PATH limits it to files and folders, which have both names
    of a file that is moved, and does not count as the last `apply`. Where the service does not tell
    runs apart, everything is applied each time.

    Works as `git apply --3way`: the changes end up in the work tree and the index, merged where
    the files have changed. Files left with conflicts are named, and the status is 1; if it fails
    otherwise, every file is as it was, or those that are not are named. A tree with uncommitted
    changes is refused (2) unless --force is given: then the files with such changes are patched as
    they are, and the index stays as it is. (If all of that is killed in the middle, git has what
    they were at refs/rebyte/before.) Prints each changed file.

    --commit also commits what was applied on the current branch, and nothing else that is staged.
    --branch changes no file, index or HEAD: it makes a branch with one commit of everything that
    the task changed, on top of the commit that the task started from. The message is -m, or the
    title of the task; its trailers Rebyte-Task and Rebyte-Executor name the task and its executor.
    Author and committer, and whether and with which key it is signed, are as for `git commit` here.

    If the patch touches files that tools run by themselves (workflows, hooks, Makefile, .envrc,
    instructions for agents, lock files, anything executable) or that lead elsewhere (symbolic
    links, submodules), or that git writes in an encoding other than the patch shows, a terminal
    shows them and asks first; --yes skips this.

    Binary files of more than 1 GiB in all are refused; with PATH, only those there count.

    Hooks of the repository do not run, not even for --commit: the patch may have changed them.
    Nor do programs that its own configuration names: what signs and merges is what your own
    configuration names (`git config --global`), or git's own program. But filters run, and what
    your git-lfs runs by the repository's configuration (lfs.extension.*, lfs.customtransfer.*).
    With --branch, no filter runs.
    If the repository has the changes already, this does nothing (0). If it lacks the content that
    a file was changed from, or the patch does not tell it, what fits backwards counts as there: of
    two equal blocks of lines in one place, the second is left out. A file that is made in the place
    of another one is a conflict.

    Refused are hunks without context (`git diff -U0`), a file that would not become what the patch
    says by its id, and binary files without their data, or with other data than the id tells. So
    are commits of which one moves or removes what an earlier one changes, and files that only
    change places (`git diff -B -M`), which could not be told from those that have done so already.

    Examples:

      rebyte apply @last
      rebyte apply @last -- src docs/index.md
      rebyte apply @last --branch fix-login
      rebyte diff @last && rebyte apply @last --yes --commit -m "Fix the login"
    """
    from ..tasks import patch

    refuse({"--branch and --commit": branch is not None and flags["commits"]})
    has_commit = branch is not None or flags["commits"]
    refuse({"--message": message is not None and not has_commit}, "requires --commit or --branch")
    done = ["Nothing was applied"]
    try:
        task_id = chosen_task(app, task)
        root = patch.top_level()
        source = patch.source(app.client, task_id, app.known.workspace_of(task_id))
        if branch is not None:
            force = flags["force"]
            return _to_branch(app, source, root, paths, branch, message, done, force=force)
        return _to_tree(app, source, root, paths, message, done, **flags)
    except (KeyboardInterrupt, Interrupted) as stop:
        stop = Interrupted.of(stop)
        raise Interrupted(stop.exit_status, hint=stop.hint or done[-1]) from None


def _to_tree(
    app: App,
    source: PatchSource,
    root: Path,
    paths: tuple[str, ...],
    message: str | None,
    done: list[str],
    **flags: bool,
) -> RecordList:
    """Apply what is new, and commit it if that is wanted; `done` gets what an interrupt tells."""
    from ..tasks import apply, file_changes, patch
    from ..tasks.prepared_patch import prepared

    before = {} if flags["everything"] else app.history.applied(source.task, str(root))
    still_here = set(_still_here(app, source, before, root))
    runs = [run for run in source.runs if run not in still_here]
    found = patch.fetch(app.client, source, runs)
    if paths:
        found = patch.only(found, paths, root)
    head = patch.head(root)

    def remember() -> None:
        if not paths:
            app.history.add_applied(source.task, str(root), runs, head)

    if not found.strip():
        remember()
        since = " since it was applied here" if 0 < len(runs) < len(source.runs) else ""
        return _nothing(app, f"The task changed nothing{since}")
    if source.runs and not runs:
        again = "all of it was applied here before; --all applies it again"
        return _nothing(app, f"Nothing to apply: {again}")
    changes = file_changes.changes(found, root)
    commit = None
    with contextlib.ExitStack() as stack:
        # With --commit, the files of others are as the index has them.
        is_forced = flags["force"] and not flags["commits"]
        try:
            ready = stack.enter_context(prepared(found, root, force=is_forced))
        except patch.PatchConflict:
            _check_clean(root, changes, commits=flags["commits"], force=flags["force"])
            raise
        if ready.is_here and not (flags["commits"] and ready.after.changes):
            remember()
            return _nothing(app, f"Nothing to apply: {root} has these changes already")
        _check_clean(root, changes, commits=flags["commits"], force=flags["force"])
        rows = file_changes.made(changes, ready.after.changes)
        if not flags["yes"]:
            _warn(app, _risks(ready), asks=True)
        if flags["commits"]:
            commit = _prepared(source, root, found, head, message)

        def applied() -> None:
            more = ", but not committed" if flags["commits"] else ""
            if conflicts := ready.after.conflicts:
                more = f", with conflicts in {', '.join(conflicts)}"
            done.append(f"The changes were applied{more}")
            remember()

        apply.apply(ready, applied)
    app.note(f"Applied the changes to {_files(rows)} in {root}")
    if commit is not None:
        _advance(root, commit, head, source.task, done)
        app.note(f"Committed as {commit[:SHORT]}")
    return RecordList(CHANGE, [_row(change, commit) for change in rows])


def _advance(root: Path, commit: str, head: str, task: str, done: list[str]) -> None:
    """Move the current branch to the commit; `done`: see `_to_tree`."""
    from ..system import git
    from ..tasks.commit import advance_head

    with git.signals_later():
        try:
            advance_head(root, commit, head, f"rebyte apply: {task}")
        except git.GitFailed as error:
            raise error.copy_with(hint=done[-1]) from None
        done.append("The changes were applied and committed")


def _check_clean(root: Path, changes: list[FileChange], *, commits: bool, force: bool) -> None:
    """Refuse uncommitted changes; with `force`, only those that a commit could not leave out."""
    from ..tasks import patch
    from ..tasks.commit import check_nothing_under_way

    if commits:
        check_nothing_under_way(root)
    if force and not commits:
        return
    dirty = patch.uncommitted(root)
    if force:
        names = (name for each in changes for name in (each.path, each.old_path) if name)
        touched = set(map(patch.listed, names))
        dirty = [name for name in dirty if name in touched]
    if dirty:
        more = f" and {len(dirty) - 3} more" if len(dirty) > 3 else ""
        hint = "Commit or stash them" + ("" if force else ", or use --force to apply anyway")
        raise BadUsage(f"there are uncommitted changes: {', '.join(dirty[:3])}{more}", hint=hint)


def _risks(ready: PreparedPatch) -> list[str]:
    """What the patch brings that tools run by themselves."""
    from ..tasks.risks import encoded_here, risks_between
    from ..tasks.trees import NO_FILE

    names = [each.path for each in ready.after.changes if each.mode != NO_FILE]
    encodings = encoded_here(ready.root, names)
    return risks_between(ready.root, ready.base, ready.after.tree, encodings)


def _warn(app: App, risks: Sequence[str], *, asks: bool) -> None:
    from ..tasks.risks import HEADING

    if risks:
        app.note("\n  ".join([HEADING, *risks]))
        if asks and app.interactive:
            confirm(app, "Apply these changes?", yes=False)


def _prepared(
    source: PatchSource, root: Path, found: bytes, head: str, message: str | None
) -> str | None:
    """The commit that is to follow `head`, before anything is applied; None if there are conflicts.

    What git refuses, such as a commit of a user without a name, changes nothing then.
    """
    from ..tasks import commit, patch, patched_tree

    try:
        tree = patched_tree.tree_with(root, head, found)
    except patch.PatchConflict:
        if patch.uncommitted(root):
            raise
        return None  # applying it says so, and leaves the conflicts to be resolved
    text = commit.message(message, {**source.document, "id": source.task})
    return commit.commit_tree(root, tree, [head] if head else [], text)


def _to_branch(
    app: App,
    source: PatchSource,
    root: Path,
    paths: tuple[str, ...],
    branch: str,
    message: str | None,
    done: list[str],
    *,
    force: bool,
) -> RecordList:
    """Make a branch of everything that the task changed; `done`: see `_to_tree`."""
    from ..system import git
    from ..tasks import base_commit, commit, file_changes, patch, patched_tree
    from ..tasks.risks import risks_between
    from ..tasks.trees import difference

    old = commit.check_branch(root, branch, force=force)
    found = patch.fetch(app.client, source)
    if paths:
        found = patch.only(found, paths, root)
    if not found.strip():
        return _nothing(app, f"The task changed nothing, so there is no branch {branch}")
    task = {**source.document, "id": source.task}
    known = app.history.task(source.task) or {}
    base = base_commit.base_commit(
        task, found, root, branch=known.get("branchName"), noted=known.get("baseCommit")
    )
    changes = file_changes.changes(found, root)
    tree = patched_tree.tree_with(root, base, found)
    changes = file_changes.made(changes, difference(root, base, tree))
    # Nothing runs them before they are checked out.
    _warn(app, risks_between(root, base, tree), asks=False)
    made = commit.commit_tree(root, tree, [base], commit.message(message, task))
    with git.signals_later():
        commit.set_branch(root, branch, made, old, f"rebyte apply: {source.task}")
        done.append(f"Branch {branch} was made")
    app.note(f"Branch {branch} is at {made[:SHORT]}, with {_files(changes)} changed")
    return RecordList(CHANGE, [_row(change, made) for change in changes])


def _files(changes: list[FileChange]) -> str:
    return f"{len(changes)} file{'' if len(changes) == 1 else 's'}"


def _still_here(
    app: App, source: PatchSource, applied: Mapping[str, str], root: Path
) -> Iterator[str]:
    """The runs whose changes were applied here and can still be in the tree."""
    from ..tasks import patch

    runs_at = dict[str, list[str]]()
    for run in source.runs:
        if run in applied:
            runs_at.setdefault(applied[run], []).append(run)
    for head, runs in runs_at.items():
        if patch.can_be_here(head, root, partial(patch.fetch, app.client, source, runs)):
            yield from runs


def _nothing(app: App, why: str) -> RecordList:
    app.note(why)
    return RecordList(CHANGE, [])


def _row(change: FileChange, commit: str | None) -> dict[str, object]:
    row: dict[str, object] = {
        "path": change.path,
        "oldPath": change.old_path,
        "status": change.status,
        "additions": change.additions,
        "deletions": change.deletions,
        "executable": change.executable,
    }
    return row | ({"commit": commit} if commit else {})
