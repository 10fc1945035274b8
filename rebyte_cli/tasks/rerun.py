"""What a rerun takes over from an earlier task: its prompt from the service, the rest from here.

The history knows what was sent, but only the first line of the prompt. The service shows the whole
prompt, but neither skills nor repository.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..api.failures import is_unsupported
from ..api.views import ContentView
from ..errors import APIError, NotFound, PromptChanged
from ..history.rows import digest_of
from .checkout import APPLY

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..history.history import History

_HINT = "Pass it with -p TEXT or --prompt-file FILE; the other options are taken over"
_FIELDS = ("executor", "model", "skills", "githubUrl", "branchName", "localRepository")


class Earlier(NamedTuple):
    """What was sent for a task: fields of POST /tasks besides prompt and files, files, labels.

    `files` are absolute paths, or names where no path is known.
    """

    fields: Mapping[str, Any]
    files: Sequence[str] = ()
    labels: Mapping[str, str] = {}


class FirstPrompt(NamedTuple):
    """The prompt that a task was created with.

    `follow_ups`: how many prompts came after it. `had_changes`: it told the agent to apply a
    patch with uncommitted changes, which `text` no longer does. `is_certain`: it was sent from
    here, and is shown as it was sent.
    """

    text: str
    follow_ups: int
    had_changes: bool
    is_certain: bool


def remembered(history: History, task_id: str) -> Earlier | None:
    """What the history knows of a task that was created here; None for any other.

    `workspaceId` is among the fields only if the task was told which one to use.
    """
    task = history.task(task_id)
    if task is None or not task["prompt"]:  # of a task that was only found, nothing is known
        return None
    fields = {name: task[name] for name in _FIELDS if task[name]}
    if task["givenWorkspaceId"]:
        fields["workspaceId"] = task["givenWorkspaceId"]
    return Earlier(fields, task["files"], history.labels.of([task_id]).get(task_id, {}))


def shown(client: RebyteClient, task_id: str) -> Earlier:
    """What the service shows of a task. Raises ResourceNotFound if there is none."""
    task = client.get_task(task_id)
    return Earlier({name: task[name] for name in ("executor", "model") if task.get(name)})


def first_prompt(client: RebyteClient, history: History, task_id: str) -> FirstPrompt:
    """The prompt that a task was created with.

    Raises ResourceNotFound if there is no such task, PromptChanged if the service shows something
    else (shortened, escaped, masked), APIError if it does not show prompts (the content document
    was seen in clients only).
    """
    try:
        content = ContentView(client.task_content(task_id))
    except APIError as error:
        if not is_unsupported(error):
            raise
        # Either the endpoint is missing or the task is; reading the task tells which.
        content = ContentView(client.get_task(task_id))
    text = content.prompts[0].text if content.prompts else ""
    if not text.strip():
        raise APIError(
            f"the service does not show the prompt of task {task_id}",
            hint=_HINT,
            code="prompt_not_shown",
            subject="",
        )
    sent = history.prompt_digest(task_id)
    if sent is not None and sent != digest_of(text):
        raise PromptChanged(
            f"the service shows the prompt of task {task_id} differently from what was sent",
            hint=_HINT,
        )
    plain = text.rstrip().removesuffix(APPLY)
    had_changes = plain != text.rstrip()
    return FirstPrompt(
        plain if had_changes else text, len(content.prompts) - 1, had_changes, sent is not None
    )


def check_repository(task_id: str, fields: Mapping[str, Any]) -> None:
    """Raise NotFound if the task worked on a folder of this machine that is gone."""
    folder = str(fields.get("localRepository") or "")
    if os.path.isabs(folder) and not os.path.isdir(folder):
        raise NotFound(
            f"the repository of task {task_id} no longer exists: {folder}",
            hint="Name another one with -g",
            subject="",
        )


def check_files(task_id: str, files: Sequence[str]) -> None:
    """Raise NotFound if a file of an earlier task cannot be uploaded again."""
    for file in files:
        if not os.path.isabs(file):
            problem = f"where it came from is not known on this machine: {file}"
        elif not os.path.exists(file):
            problem = f"it no longer exists: {file}"
        else:
            continue
        raise NotFound(
            f"a file of task {task_id} cannot be uploaded again; {problem}",
            hint="Pass the files to upload with -f PATH",
            subject="",
        )
