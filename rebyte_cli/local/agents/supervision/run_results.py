"""What a run leaves once its agent is gone: its patch, and a folder in which git is safe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ....system.files import replacing
from ....system.git import GitFailed
from ...artifact_store import PATCH_FILE, put_result
from ...store import Store
from ..cluster import launcher
from ..limits.run_meter import END_SECONDS, left_behind
from ..workspaces import changes
from ..workspaces.disarm import disarm
from ..workspaces.sync import complete_merge
from ..workspaces.workspace_folder import WHOLE, Workspace
from . import recovery, runs
from .outbox import patient_store, patiently


def finish(state_dir: str, prompt_id: str) -> str:
    """Keep what a run has changed whose supervisor was killed. Its lock is held by this process.

    Returns what its patch lacks, or why there is none. While its job stays, it is left unfinished.
    """
    os.umask(0o077)
    store = patient_store(state_dir)
    with store.read() as db:
        (run,) = runs.find(db, "prompt = ?", prompt_id)
        options = runs.options_of(db, run)
    workspace = Workspace(store.folder, run.workspace)
    notes = list[str]()
    patch, problem = collect(workspace, prompt_id, options, notes.append)
    notes += filter(None, [problem])
    folder = workspace.run_folder(prompt_id)
    stays = launcher.has_job(folder)
    used = left_behind(folder, options, seconds=0.0 if stays else END_SECONDS)

    def keep() -> None:
        with store.write() as db:
            runs.record_used(db, prompt_id, used, is_all=not stays)
            if patch is None:  # an earlier one is not what is in the workspace now
                runs.drop_patch(db, store.folder, run.workspace)
            else:
                put_result(store.objects, db, run.workspace, PATCH_FILE, patch, store.now())
            for note in notes:
                if not runs.told_so_far(db, prompt_id, note)[2]:
                    runs.append(db, prompt_id, store.now(), "text", {"content": note})

    patiently(keep)
    return problem


def bury(store: Store, run: runs.RunRecord) -> None:
    """Record the end of a run whose supervisor was killed, unless it has one, and what it changed.

    Its lock is held here.
    """
    with store.read() as db:
        has_ended = runs.has_ended(db, run.prompt)
        options = runs.options_of(db, run)
    if not has_ended:
        used = left_behind(run.folder(store.folder), options)

        def record() -> None:
            with store.write() as db:
                recovery.record_vanished(db, store.folder, run, used)

        patiently(record)
    with store.read() as db:
        is_left = run.prompt in [each.prompt for each in runs.unfinished(db)]
    if is_left:
        finish(str(store.folder), run.prompt)


def collect(
    workspace: Workspace,
    prompt_id: str,
    options: Mapping[str, Any],
    tell: Callable[[str], object],
) -> tuple[bytes | None, str]:
    """As `patch_of`, once the job of the run has ended; then, git is safe in its workspace.

    Why it is not is for the transcript, and told.
    """
    try:
        launcher.end_job(workspace.state_dir, workspace.run_folder(prompt_id))
    except OSError as error:
        return None, _no_patch(workspace, prompt_id, error)
    found = patch_of(workspace, prompt_id, options)
    if unsafe := make_git_safe(workspace, tell):
        tell(unsafe)
    return found


def patch_of(
    workspace: Workspace, prompt_id: str, options: Mapping[str, Any]
) -> tuple[bytes | None, str]:
    """The patch of a run whose agent is gone, and what it lacks, or why there is none.

    There is neither when the workspace was not even made, or restored, and when an earlier patch
    stays because nothing has changed since.
    """
    if not workspace.is_there:
        return None, ""
    jailed, watch = options["jail"], partial(workspace.full_disk, options)
    notes: list[str] = []
    try:
        complete_merge(workspace, watch)
        state = workspace.state()  # what changes from here on may be in the patch or not
        patch = changes.patch(workspace, prompt_id, jailed=jailed, watch=watch, tell=notes.append)
        workspace.note_patch(prompt_id, saved=state + WHOLE * (not notes))
        return patch, "\n".join(notes)
    except (GitFailed, OSError) as error:
        if workspace.is_saved():  # the patch that there is has what there is
            return None, ""
        return None, _no_patch(workspace, prompt_id, error)


def put_aside(workspace: Workspace, prompt_id: str, patch: bytes) -> str:
    """Keep a patch in the folder of its run, whole or not at all, until the database has it.

    Returns an empty text, or why that failed: then, the run has no patch.
    """
    try:
        with replacing(workspace.run_folder(prompt_id) / PATCH_FILE, 0o600) as file:
            file.write(patch)
            file.flush()
            os.fsync(file.fileno())  # some file systems say only now that they are full
    except OSError as error:
        return _no_patch(workspace, prompt_id, error)
    return ""


def make_git_safe(workspace: Workspace, tell: Callable[[str], object]) -> str:
    """Disarm a workspace; why git is not safe there, for the transcript, or an empty text."""
    try:
        disarm(workspace, tell)
    except (GitFailed, OSError) as error:  # `workspace path` tries again
        return f"git is not safe in the folder of the workspace: {error}"
    return ""


def _no_patch(workspace: Workspace, prompt_id: str, error: Exception) -> str:
    workspace.note_patch(prompt_id, str(error))
    return f"changes.patch was not created: {error}"
