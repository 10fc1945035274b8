"""The landing itself: task after task onto the tip of a branch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadUsage, LeftOut, NotFound, RebyteError, ResourceNotFound, TaskEnded
from ..system import git
from ..tasks import commit, patched_tree
from ..tasks.patch import PatchConflict, PatchUnusable, own_repository, safe_repository
from ..tasks.risks import encoded, risks_between
from ..tasks.trees import DIFFERENCE
from .land_journal import (
    APPLIED,
    CHECKING,
    EMPTY,
    LANDED,
    LEFT_OUT,
    RERUN,
    WAITING,
    LandJournal,
    LandLine,
)

if TYPE_CHECKING:
    from ..tasks.check import CheckOutcome


class CheckRed(RebyteError):
    """The check did not pass on the changes; it carries what it came to."""

    code = "check_failed"

    def __init__(self, outcome: CheckOutcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Unlandable(RebyteError):
    """A rerun cannot be made, for a reason that lies in the task."""

    code = "no_rerun"


class Steps(NamedTuple):
    """What a landing needs of the service and of this machine.

    `ended`: the document of a task, once it has ended well; raises TaskEnded or ResourceNotFound.
    `patch`: all that a task changed, given its workspace if that is known; raises NotFound.
    `rerun`: a new task with the prompt of the first one, on the tip of the branch, as its create
    was answered, at most one for the key; raises Unlandable. `check_history`: raises what the
    history could not be read or written for, as if it knew nothing, since the landing began.
    `check`: whether a commit and a patch of it pass together, None where nothing is checked; the
    last argument names its log.
    """

    ended: Callable[[str], Mapping[str, Any]]
    patch: Callable[[str, str | None], bytes]
    rerun: Callable[[str, str], Mapping[str, Any]]
    check_history: Callable[[], None]
    check: Callable[[str, bytes, str], CheckOutcome] | None


class Landing:
    """A branch that tasks land on."""

    def __init__(
        self, root: Path, branch: str, journal: LandJournal, steps: Steps, *, reruns: int
    ) -> None:
        """`reruns` is how often a task is run again at most."""
        self.lines = journal.state.lines
        self._root = root
        self._branch = branch
        self._journal = journal
        self._state = journal.state
        self._steps = steps
        self._reruns = reruns

    def run(self) -> Iterator[Mapping[str, Any] | LeftOut]:
        """Land what has not landed yet, and yield the row of each task, or the error with it."""
        self._set_branch()
        for line in self.lines:
            while not line.is_over:
                self._advance(line)
            yield _left_out(line) if line.status == LEFT_OUT else line.row()

    def _advance(self, line: LandLine) -> None:
        """Land the patch of a line, or else decide what becomes of it."""
        if line.problem:
            error = {"code": "not_completed", "message": line.problem}
            self._record(line, "left", error=error)
            return
        try:
            if line.sends:
                key = f"land {self._journal.name} {line.number} {line.reruns}"
                made = self._steps.rerun(line.task, key)
                # Whatever failed: it exists, and its workspace may be told only this once.
                workspace = made.get("workspaceId")
                self._journal.record(line, "created", id=made["id"], workspace=workspace)
                self._steps.check_history()
            self._land(line)
        except PatchUnusable as error:
            self._reject(line, error, "left")
        except (PatchConflict, CheckRed) as error:
            check = error.outcome.document() if isinstance(error, CheckRed) else None
            again = line.reruns < self._reruns
            self._reject(line, error, RERUN if again else "left", check=check)
        except (TaskEnded, ResourceNotFound, NotFound, Unlandable) as error:
            again = 0 < line.reruns < self._reruns and not isinstance(error, Unlandable)
            self._reject(line, error, RERUN if again else "left")

    def _reject(self, line: LandLine, error: RebyteError, kind: str, **more: Any) -> None:
        told = {"code": error.code, "message": error.message}
        if isinstance(error, Unlandable) and line.error:  # what it was to be run again for
            told["message"] = f"{line.error['message']}; {error.message}"
        self._record(line, kind, error=told, title=line.title, **more)

    def _record(self, line: LandLine, kind: str, **more: Any) -> None:
        """Write down what was decided, if what decided it was read as it is."""
        self._steps.check_history()
        self._journal.record(line, kind, **more)

    def _land(self, line: LandLine) -> None:
        line.status = RERUN if line.reruns else WAITING
        task = {**self._steps.ended(line.current), "id": line.current}
        line.title = line.title or commit.message(None, task).partition("\n")[0]
        patch = self._steps.patch(line.current, line.workspace)
        line.status, tip = APPLIED, self._state.tip
        about = {"title": line.title, "url": task.get("url")}
        tree = ""
        if patch.strip():
            # What landed before has no say in how this is merged: its author is an agent.
            tree = patched_tree.tree_with(self._root, tip, patch, self._state.started_at)
        before = git.line(["rev-parse", f"{tip}^{{tree}}"], self._root, own_repository())
        if tree in ("", before):
            self._record(line, EMPTY, **about)
            return
        exact, risks = patched_tree.of_patch(  # a few bytes of a patch may copy large files
            lambda: self._difference(tip, tree), lambda: encoded(self._root, "", tip)
        )
        check = self._checked(line, tip, exact)
        if line.picked is None:
            self._record(line, "picked", at=int(time.time()))
        dates = {"GIT_COMMITTER_DATE": f"@{line.picked} +0000"}
        dates["GIT_AUTHOR_DATE"] = f"@{_seconds(task.get('completedAt')) or line.picked} +0000"
        made = commit.commit_tree(self._root, tree, [tip], commit.message(None, task), dates)
        self._record(line, LANDED, commit=made, check=check, risks=risks, **about)
        self._set_branch()

    def _difference(self, tip: str, tree: str) -> tuple[bytes, list[str]]:
        """What makes the tree of the tip, as a patch if that is checked, and its risks."""
        exact = b""
        if self._steps.check is not None:
            words = [*DIFFERENCE, "-p", "--binary", "--full-index", tip, tree]
            words += ["--no-ext-diff", "--no-textconv"]
            exact = git.run(words, self._root, safe_repository(self._root))
        return exact, risks_between(self._root, tip, tree)

    def _checked(self, line: LandLine, tip: str, exact: bytes) -> Mapping[str, Any] | None:
        """Check the tip with the changes. Raises CheckRed, or what the check cannot run for."""
        if self._steps.check is None:
            return None
        line.status = CHECKING
        outcome = self._steps.check(tip, exact, f"{self._branch}-{line.current}")
        if outcome.exit is None and not outcome.of_changes:
            raise RebyteError(outcome.reason, code="check_unusable")
        if not outcome.passed:
            raise CheckRed(outcome)
        return outcome.document()

    def _set_branch(self) -> None:
        """Let the branch name the tip. It may be at the commit before, or not exist yet."""
        old = commit.check_branch(self._root, self._branch, force=True)
        state = self._state
        begins = state.tip == state.started_at
        if old == state.tip:
            return
        if old != state.before and (old or not begins):
            raise BadUsage(
                f"the branch {self._branch} was moved: it is at {old[:10] or 'no commit'}, and not"
                f" where this landing left it, at {state.tip[:10]}",
                hint="Put it back, name another branch, or start over with --force",
            )
        commit.set_branch(self._root, self._branch, state.tip, old, "rebyte land")


def _seconds(when: Any) -> int | None:
    """A time of the API in seconds since 1970; None if it is none that a commit can have."""
    try:
        return max(0, int(datetime.fromisoformat(str(when)).timestamp())) or None
    except (ValueError, OverflowError):
        return None


def _left_out(line: LandLine) -> LeftOut:
    name = " ".join(filter(None, (line.task, line.title and f"({line.title})")))
    return LeftOut(f"{name}: left out: {(line.error or {}).get('message')}", row=line.row())
