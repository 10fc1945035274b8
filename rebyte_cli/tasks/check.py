"""Check what a task did: run a command on its changes, where no agent has a say.

The patch of the task is applied to a fresh clone of the commit that it started from, protected
paths are put back to what they were, and the command runs there in a jail, which has no network but
the hosts that the user names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import (
    BadUsage,
    CheckBroken,
    CheckFailed,
    NotFound,
    RebyteError,
    ResourceNotFound,
    TaskEnded,
    Term,
)
from ..system import git
from . import check_tree
from .check_tree import Base
from .patch import PatchUnusable

if TYPE_CHECKING:
    from ..api.client import RebyteClient

FOLDER = "checks"  # of the state folder: logs, and the trees of checks under way
SECONDS = 600.0
KEPT_SECONDS = 30 * 86400.0  # how long logs are kept
REASON_LINES = 10
PATHS_TOLD = 20
PASSED, FAILED, BROKEN = "passed", "failed", "error"


class CheckCommand(NamedTuple):
    """How to check: a shell command, patterns of further protected paths, a limit in seconds.

    `jailed` is false only if the user has asked for that. `hosts` are those that the command may
    connect to.
    """

    command: str
    protect: Sequence[str] = ()
    seconds: float = SECONDS
    jailed: bool = True
    hosts: Sequence[str] = ()


class CheckOutcome(NamedTuple):
    """What a check came to.

    `status` is passed, failed, or error if the command could not be run on the changes. `exit` is
    its exit status, 124 at the time limit, None for an error. `output` has the last lines, without
    sequences for terminals, or the reason of an error; the `file` has all of it. `restored` are the
    protected paths that the task had changed. `of_changes`: an error is due to the changes.
    """

    status: str
    command: str
    exit: int | None
    output: str
    file: str | None = None
    restored: tuple[str, ...] = ()
    of_changes: bool = False

    @property
    def passed(self) -> bool:
        """Whether the command exited with 0."""
        return self.status == PASSED

    @property
    def summary(self) -> str:
        """Why it did not pass, in one line."""
        if self.exit is None:
            return self.output.split("\n")[0]
        return f"`{self.command}` exited with status {self.exit}"

    @property
    def reason(self) -> str:
        """Why it did not pass, with the last lines of what the command printed."""
        if self.exit is None:
            return self.output
        last = self.output.split("\n")[-REASON_LINES:]
        return "\n".join([self.summary, *filter(None, last)])

    def of_task(self, task: Mapping[str, Any]) -> Mapping[str, Any] | TaskEnded:
        """The document of a task with this outcome: itself, or as the error that it stands for."""
        if self.passed:
            return task
        kind = CheckBroken if self.status == BROKEN else CheckFailed
        return kind(task, self.reason, self.summary)

    def prompt(self, number: int, most: int) -> str:
        """What to tell the task, for try `number` of `most`."""
        parts = [
            f"The check `{self.command}` fails with exit status {self.exit} on your changes."
            f" Find out why, and make it pass (try {number} of {most})."
        ]
        if self.restored:
            paths = ", ".join(self.restored[:PATHS_TOLD])
            parts.append(
                "For the check, these files are put back to what they were before your work, so"
                f" that changes to them have no effect: {paths}"
            )
        parts.append(f"The last lines of what it printed:\n\n{self.output}")
        return "\n\n".join(parts)

    def document(self, tries: int = 1) -> dict[str, Any]:
        """The `check` of a task in JSON. `tries` counts the runs that were checked."""
        return {
            "status": self.status,
            "command": self.command,
            "exit": self.exit,
            "tries": tries,
            "output": self.output,
            "file": self.file,
            "restored": list(self.restored),
        }


class CheckUnusable(RebyteError):
    """No check can be made here: there is no jail, or no command."""

    code = "check_unusable"


def require_jail(how: CheckCommand) -> None:
    """Raise CheckUnusable if `how` needs a jail and none can be made."""
    if not how.jailed:
        return
    from ..local.agents.workspaces import tryout

    try:
        tryout.check_jail()
    except tryout.NoJail as error:
        no_sandbox = Term("--no-jail", "`check --no-jail` in a shell")
        remedy = f"{error.remedy}. " if error.remedy else ""
        raise CheckUnusable(
            f"a check needs a sandbox: {error}",
            hint=remedy + "To run what an agent wrote without one, with your files: " + no_sandbox,
        ) from None


def base_of(
    workspace: str | None,
    known: Mapping[str, Any],
    *,
    revision: str | None = None,
    local_state: Path | None = None,
) -> Base:
    """The commit that a task started from.

    That of the `workspace` on this machine, if the task is of the local service, whose folder is
    `local_state`; else the `revision` that the user names, or the commit that the history noted
    (`known` is its row), in the repository that the task was created for, or the one here. Raises
    BadUsage when it is not known, NotFound when that repository does not have it.
    """
    from ..local.agents.workspaces import tryout

    if local_state is not None and workspace and revision is None:
        own = tryout.base_repository(local_state, workspace)
        if own is not None:
            return Base(own, "refs/heads/base", is_own=True)
    commit = revision or known.get("baseCommit")
    if not commit:
        raise BadUsage(
            "the commit that the task started from is not known",
            hint="Name it with " + Term("--base REV", "`base`"),
        )
    place = known.get("localRepository")
    if not (place and Path(place).is_dir()):
        try:
            place = git.top_level(".")
        except git.GitFailed as error:
            raise BadUsage(
                f"no repository to check in: {error.message}",
                hint="Run this command inside the repository that the task worked on",
            ) from None
    if not git.has(place, f"{commit}^{{commit}}"):
        raise NotFound(
            f"the repository {place} has no commit {commit}",
            hint="Fetch it, or name another one with " + Term("--base REV", "`base`"),
        )
    git.check_name(place, commit)
    return Base(Path(place), commit)


def fetch_changes(client: RebyteClient, task_id: str, workspace: str | None) -> bytes:
    """Everything that changed in the workspace of a task, as a patch of the commit it started from.

    Raises NotFound if there is none, as `patch.fetch` does.
    """
    from . import patch

    found = patch.source(client, task_id, workspace)
    if found.workspace is None:  # of a create whose answer was lost; a service here knows it
        with suppress(ResourceNotFound):
            return patch.downloaded(client.get_changes, task_id, [])
    return patch.fetch(client, found._replace(runs=[]))


def run(
    base: Base,
    patch: bytes,
    how: CheckCommand,
    *,
    state_dir: Path,
    config_file: Path | None,
    name: str,
    trusted: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> CheckOutcome:
    """Check a patch; its whole output is in `checks/NAME.log` of the state folder afterwards.

    Protected paths are put back to what they are in the commit `trusted`, by default the base. It
    ends soon after `stopped` says so. Nothing of the repository is changed. Every process of the
    check has ended when this returns or raises. Raises CheckUnusable and BadUsage, for a pattern
    that matches nothing; what else is wrong is an outcome.
    """
    from ..local.agents.workspaces import tryout

    require_jail(how)
    place = state_dir / FOLDER
    restored: list[str] = []
    try:
        with tryout.folder(place) as scratch:
            _remove_old(place)
            code = scratch / tryout.CODE
            with git.watched(tryout.full(scratch, config_file)):
                restored = check_tree.make(code, base, patch, how.command, how.protect, trusted)
            log = place / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.log"
            end = tryout.run(
                scratch,
                how.command,
                log,
                seconds=how.seconds,
                jailed=how.jailed,
                hosts=how.hosts,
                settings=config_file,
                stopped=stopped,
            )
        full = tryout.full(place, config_file)()  # without what the command has written
        if end.status and full:
            raise OSError(full)
    except (git.GitFailed, PatchUnusable) as error:
        reason = f"the changes cannot be applied to {base.commit}: {error.message}"
        of_changes = isinstance(error, PatchUnusable)
        return CheckOutcome(BROKEN, how.command, None, reason, of_changes=of_changes)
    except (OSError, ValueError) as error:  # the disk, or what config.toml says of tools
        return CheckOutcome(BROKEN, how.command, None, f"the check cannot run: {error}")
    tail = tryout.last_lines(log)
    if end.reason:
        tail = f"{tail}\n[{end.reason}]".lstrip("\n")
    status = PASSED if end.status == 0 else FAILED
    return CheckOutcome(status, how.command, end.status, tail, str(log), tuple(restored))


def _remove_old(place: Path) -> None:
    before = time.time() - KEPT_SECONDS
    for log in place.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_mtime < before:
                log.unlink()
