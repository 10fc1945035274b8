"""What must not be made twice: a task, and a prompt of a task."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import APIError, OutcomeUnknown, ResourceNotFound
from .looking import Look, Sent, Sight, digest_of, find_prompts

if TYPE_CHECKING:
    from ..api.client import RebyteClient
    from ..profiles.history import History

_CREATED = ("id", "workspaceId", "url", "status", "createdAt")
_SHOWN = ("id", "url", "createdAt", "title")


class Errand(ABC):
    """What is sent, and how to recognise it afterwards.

    `digest` stands for what is made, `prompt_digest` for its prompt alone, `body_digest` for all
    that was asked for.
    """

    digest: str
    prompt_digest: str
    body_digest: str
    prompt: str
    body: Mapping[str, Any]

    @abstractmethod
    def send(self) -> dict[str, Any]:
        """Send it, once; the answer must name what was made."""

    @abstractmethod
    def look(self, sent: Sent, seconds: float) -> Sight:
        """One look at what it may have made."""

    @abstractmethod
    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a look saw, in the shape of the answer to `send`."""

    @abstractmethod
    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        """Remember what was made; returns its id. `as_asked`: it was made from this prompt."""

    @abstractmethod
    def says(self, answer: Mapping[str, Any]) -> str:
        """What was made, for a person."""

    def stop(self, answer: Mapping[str, Any]) -> str:
        """How to stop what was made, as the end of a sentence."""
        return ""

    @abstractmethod
    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        """The error when it cannot be known what was made."""


class Create(Errand):
    """A new task: found again in the list, by the prompt in its content."""

    def __init__(
        self, client: RebyteClient, history: History, body: Mapping[str, Any], prompt: str
    ) -> None:
        self._client = client
        self._history = history
        self._look = Look(client, history.knows)
        self.body = body
        self.prompt = prompt
        self.digest = self.prompt_digest = digest_of(prompt)
        self.body_digest = _digest(body)

    def send(self) -> dict[str, Any]:
        return self._client.create_from(self.body)

    def look(self, sent: Sent, seconds: float) -> Sight:
        return self._look(sent, seconds=seconds)

    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The shape of a create's answer. The list has no status, so the task is asked for it."""
        task = {"status": "running", **row}
        with suppress(APIError):  # the id is what matters, and it is known
            task.update(self._client.get_task(row["id"], timeout=10))
        return {name: task[name] for name in _CREATED if task.get(name) is not None}

    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        if as_asked:
            self._history.add_task(answer, prompt=self.prompt, body=self.body)
        else:
            self._history.add_task(answer, prompt="")
        return str(answer["id"])

    def says(self, answer: Mapping[str, Any]) -> str:
        link = f" ({answer['url']})" if answer.get("url") else ""
        return f"task {answer['id']}{link}"

    def stop(self, answer: Mapping[str, Any]) -> str:
        return f"; `rebyte cancel {answer['id']}` stops it"

    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        shown = [{name: row[name] for name in _SHOWN if name in row} for row in candidates]
        message = "a task was asked for, and whether it was created is not known"
        if shown:
            message += f"; it may be {' or '.join(row['id'] for row in shown)}"
        elif why:
            message += f"; looking for it failed: {why}"
        if key is None:
            hint = "see `rebyte list`; with `--once KEY` a create can be repeated safely"
        else:
            hint = (
                "run the same command again: it looks first, and sends again 15 minutes after"
                " the first attempt at the earliest; add --forget to drop the key instead"
            )
        return OutcomeUnknown(message, candidates=shown, hint=hint)


class FollowUp(Errand):
    """A prompt for a task that exists: found again in the task's content."""

    def __init__(
        self, client: RebyteClient, history: History, task_id: str, body: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._history = history
        self._task_id = task_id
        self.body = body
        self.prompt = str(body.get("prompt", ""))
        self.prompt_digest = digest_of(self.prompt)
        self.digest = digest_of(f"{task_id}\n{self.prompt}")
        self.body_digest = _digest(body)

    def send(self) -> dict[str, Any]:
        return self._client.follow_up_from(self._task_id, self.body)

    def look(self, sent: Sent, seconds: float) -> Sight:
        try:
            content = self._client.task_content(self._task_id, timeout=seconds)
        except ResourceNotFound:  # no content here; the task at least names its prompts
            content = self._client.get_task(self._task_id, timeout=seconds)
        return find_prompts(content, sent)

    def taken(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"promptId": row["id"]}

    def keep(self, answer: Mapping[str, Any], *, as_asked: bool = True) -> str:
        # The task runs again; `wait` or the next look at it would say the same.
        self._history.update_task({"id": self._task_id, "status": "running", "completedAt": None})
        return str(answer["promptId"])

    def says(self, answer: Mapping[str, Any]) -> str:
        return f"prompt {answer['promptId']} of task {self._task_id}"

    def unknown(
        self, candidates: list[dict[str, Any]], key: str | None, why: str | None
    ) -> OutcomeUnknown:
        message = f"a prompt was sent to task {self._task_id}, and whether it arrived is not known"
        shown = [
            {"id": self._task_id, "promptId": row["id"], "createdAt": row.get("submittedAt")}
            for row in candidates
        ]
        if shown:
            message += f"; it may be prompt {' or '.join(row['promptId'] for row in shown)}"
        elif why:
            message += f"; looking for it failed: {why}"
        hint = f"`rebyte logs {self._task_id}` shows what the task was told"
        return OutcomeUnknown(message, candidates=shown, hint=hint)


def _digest(body: Mapping[str, Any]) -> str:
    """What stands for a whole body. Files are only counted: each upload gives them new names."""
    files = body.get("files")
    plain = {**body, "files": len(files)} if isinstance(files, list) else dict(body)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
