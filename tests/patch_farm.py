"""A service whose tasks leave patches, made by a function of the test.

with PatchFarm(lambda prompt: patch_of(...)) as farm:
    task = farm.add("Add a file", patch)      # a task that has ended
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rebyte_cli.tasks import apply
from rebyte_cli.tasks.prepared_patch import prepared
from tests.farm import Farm
from tests.repositories import git
from tests.servers import Answer, Request, error_reply, reply


class PatchFarm(Farm):
    """A farm with an `agent`, which is given the body of a create and returns the task's patch.

    `fields` are what a test adds to the documents of tasks, by id. `made_one` is called after each
    create has made its task, before it is answered. `tells_workspace`: not only that answer does.
    """

    def __init__(
        self, agent: Callable[[dict[str, Any]], bytes | None] = lambda _: None, **more: Any
    ) -> None:
        super().__init__(hook=self._artifact, **more)
        self.agent = agent
        self.patches: dict[str, bytes | None] = {}  # by workspace
        self.fields: dict[str, dict[str, Any]] = {}
        self.made_one: Callable[[], object] = lambda: None
        self.tells_workspace = True

    def add(self, prompt: str, patch: bytes | None, **fields: Any) -> str:
        """A task that has ended and left this patch; its id."""
        task = super()._make({"prompt": prompt})
        self.patches[task["workspaceId"]] = patch
        self.fields[task["id"]] = {"title": prompt, "executor": "claude", **fields}
        return str(task["id"])

    def _make(self, body: dict[str, Any]) -> dict[str, Any]:
        task = super()._make(body)
        self.fields[task["id"]] = {"title": body["prompt"], "executor": "claude"}
        self.patches[task["workspaceId"]] = self.agent(body)
        self.made_one()
        return task

    def _reply(self, document: Any, *args: Any) -> bytes:
        if isinstance(document, dict) and document.get("id") in self.fields:
            more = self.fields[document["id"]]
            if self.tells_workspace:
                more = {"workspaceId": self.tasks[document["id"]]["workspaceId"], **more}
            document = {**document, **more} if "prompts" not in document else document
        return super()._reply(document, *args)

    def _artifact(self, request: Request) -> Answer | None:
        parts = urlsplit(request.path).path.split("/")
        if parts[1:3] != ["v1", "workspaces"] or parts[-1] != "changes.patch":
            return None
        patch = self.patches.get(parts[3])
        return error_reply(404, "not_found", "No artifact") if patch is None else reply(200, patch)


def patch_of(
    repository: Path, change: Callable[[], object], base: str = "HEAD", *options: str
) -> bytes:
    """The patch of what a function changes in a working tree, which is put back then.

    `options` are more of `git diff`.
    """
    git(repository, "checkout", "-q", "--detach", base)
    change()
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Work")
    # Not as text: it may be of no encoding.
    words = ["git", "diff", "--binary", "--full-index", *options, "HEAD~", "HEAD"]
    made = subprocess.run(words, cwd=repository, capture_output=True, check=True).stdout
    git(repository, "checkout", "-q", "main")
    return made


def bring(
    patch: bytes, root: Path, applied: Callable[[], None] = lambda: None, *, force: bool = False
) -> list[str]:
    """Apply a patch as the command does; the names of the files that changed."""
    with prepared(patch, root, force=force) as ready:
        apply.apply(ready, applied)
        return [os.fsdecode(each.path) for each in ready.files]
