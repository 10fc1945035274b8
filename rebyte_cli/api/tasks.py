"""Tasks: create, read, follow, steer, remove."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, BrokenAnswer, NetworkError, WaitTimeout
from .base import PAGE, Calls
from .origin import check_id
from .retry import SLOW_SECONDS, Repeat

if TYPE_CHECKING:
    from .sse import Event

GRACE = 2.0  # seconds that the last look of a wait may run over its limit


class Tasks(Calls):
    """The calls under `/tasks`."""

    def create_task(
        self,
        prompt: str,
        *,
        executor: str | None = None,
        model: str | None = None,
        skills: Iterable[str] | None = None,
        files: Iterable[Mapping[str, str]] | None = None,
        github_url: str | None = None,
        branch_name: str | None = None,
        workspace_id: str | None = None,
    ) -> dict[str, Any]:
        """Start a task; returns `id`, `workspaceId`, `url`, `status`, `createdAt` (seed document).

        Blocks until the VM is up, which may take minutes. Only what is given is sent. Raises
        OutcomeUnknown when the request went out and no usable answer came: look before trying
        again, for there is no idempotency key.
        """
        return self.create_from(
            _given(
                prompt=prompt,
                executor=executor,
                model=model,
                skills=_slugs(skills),
                files=_uploaded(files),
                githubUrl=github_url,
                branchName=branch_name,
                workspaceId=workspace_id,
            )
        )

    def create_from(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /tasks with a ready body, in the words of the wire; as `create_task`."""
        limit = self.transport.limit(SLOW_SECONDS)
        return self._created("/tasks", dict(body), "id", timeout=limit)

    def get_task(self, task_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """One task with its status and its prompts (seed document).

        `timeout` shortens the deadline of this call (seconds).
        """
        path = f"/tasks/{check_id(task_id, 'task id')}"
        return self._object("GET", path, timeout=self._at_most(timeout))

    def list_tasks(
        self, limit: int = 50, offset: int = 0, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """One page of tasks made through the API, newest first: `data`, `total`, `limit`, `offset`.

        At most 100 a page. Rows have no `status` (vendor docs). `timeout` as in `get_task`.
        """
        query = {"limit": limit, "offset": offset}
        page = self._object("GET", "/tasks", query=query, timeout=self._at_most(timeout))
        rows = page.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BrokenAnswer("GET /tasks: the answer has no list under `data`", response=page)
        return page

    def iter_tasks(
        self, page: int = PAGE, *, offset: int = 0, total: list[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every task from `offset` on, newest first, each once; asks for the next page when its
        first row is wanted. `total`, when given, is made to hold the API's count of each page.
        """
        return self._pages("/tasks", page, offset=offset, total=total)

    def follow_up(
        self,
        task_id: str,
        prompt: str,
        *,
        skills: Iterable[str] | None = None,
        files: Iterable[Mapping[str, str]] | None = None,
        executor: str | None = None,
        model: str | None = None,
    ) -> dict[str, Any]:
        """Send a further prompt to a task; returns `promptId` (seed document). As `create_task`."""
        body = _given(
            prompt=prompt,
            skills=_slugs(skills),
            files=_uploaded(files),
            executor=executor,
            model=model,
        )
        return self.follow_up_from(task_id, body)

    def follow_up_from(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /tasks/{id}/prompts with a ready body, in the words of the wire; as `follow_up`."""
        path = f"/tasks/{check_id(task_id, 'task id')}/prompts"
        limit = self.transport.limit(SLOW_SECONDS)
        return self._created(path, dict(body), "promptId", timeout=limit)

    def wait_for_task(
        self, task_id: str, *, poll_interval: float = 5.0, timeout_seconds: float = 600.0
    ) -> dict[str, Any]:
        """Read a task until it has ended, however it ended; times in seconds.

        Raises WaitTimeout, which is a TimeoutError, when it still runs after `timeout_seconds`,
        or cannot be read by then.
        """
        from .models import is_terminal, task_status

        transport = self.transport
        end = transport.clock() + timeout_seconds
        while True:
            left = max(end - transport.clock(), GRACE)
            try:
                task = self.get_task(task_id, timeout=left)
            except NetworkError as error:
                if not transport.cut_short(error, left):
                    raise
                late = f"task {task_id} could not be read in {timeout_seconds:g} s"
                raise WaitTimeout(late, pending=[task_id]) from None
            if is_terminal(task_status(task)):
                return task
            left = end - transport.clock()
            if left <= 0:
                raise WaitTimeout(
                    f"task {task_id} still runs after {timeout_seconds:g} s", pending=[task_id]
                )
            transport.sleep(min(poll_interval, left))

    def delete_task(self, task_id: str) -> None:
        """Remove a task (seed document). A 404 that our own lost first try explains is success."""
        self._delete(f"/tasks/{check_id(task_id, 'task id')}")

    def cancel_task(self, task_id: str) -> dict[str, Any]:
        """Stop a task; harmless on a finished one (seen in clients), so it may go out twice.

        What the answer holds is unknown, possibly nothing: read the task for the truth.
        """
        return self._anything("POST", f"/tasks/{check_id(task_id, 'task id')}/cancel")

    def set_visibility(self, task_id: str, visibility: str) -> dict[str, Any]:
        """`private`, `shared` or `public`; returns `visibility`, and `shareUrl` when public
        (vendor docs).
        """
        path = f"/tasks/{check_id(task_id, 'task id')}/visibility"
        return self._object("PATCH", path, body={"visibility": visibility})

    def task_content(
        self, task_id: str, *, events: bool = False, timeout: float | None = None
    ) -> dict[str, Any]:
        """The transcript: `prompts[]` with `userPrompt`, `response` and, when asked, `events`.

        Seen in clients only; `response` may be null and `events` empty after some runs.
        `timeout` as in `get_task`.
        """
        path = f"/tasks/{check_id(task_id, 'task id')}/content"
        query = {"include": "events" if events else None}
        return self._object("GET", path, query=query, timeout=self._at_most(timeout))

    def stream_events(self, task_id: str, *, idle: float | None = None) -> Iterator[Event]:
        """The events of the latest prompt over one connection, from the first one on.

        Ends when the server closes; raises NetworkError when the line breaks or nothing comes
        for `idle` seconds. `engines.following` makes one run out of several connections.
        Framing as seen in clients; data that is not a JSON object is skipped.
        """
        import json

        from .sse import Event, TooLarge, parse

        path = f"/tasks/{check_id(task_id, 'task id')}/events"
        with self.transport.stream(path, idle=idle) as chunks:
            try:
                for name, text in parse(chunks):
                    try:
                        data = json.loads(text)
                    except (ValueError, RecursionError):
                        data = None
                    if isinstance(data, dict):
                        yield Event("done" if name == "done" else "event", data)
                    elif name == "done":
                        yield Event("done", {})
            except TooLarge:
                raise BrokenAnswer(f"GET {path}: an event is larger than 16 MiB") from None

    def prompt_events(self, task_id: str, prompt_id: str) -> dict[str, Any]:
        """The events of a delegated sub-prompt: `promptId`, `events[]` (seen in a client)."""
        path = f"/tasks/{check_id(task_id, 'task id')}/prompts/{check_id(prompt_id, 'prompt id')}"
        return self._object("GET", f"{path}/events")

    def answer(self, task_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the question that parked a run: `messageId`, `actionId`, `answer` (seen in a
        client). 409 means that nothing waits for an answer any more. What a success holds is
        unknown.
        """
        path = f"/tasks/{check_id(task_id, 'task id')}/answer"
        return self._anything("POST", path, body=dict(body), repeat=Repeat.IF_UNSENT)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _slugs(skills: Iterable[str] | None) -> list[str] | None:
    if isinstance(skills, str):  # whose letters would go out as slugs
        raise BadUsage("skills: a list of slugs is needed, not one string")
    return None if skills is None else list(skills)


def _uploaded(files: Iterable[Mapping[str, str]] | None) -> list[dict[str, str]] | None:
    listed = None if files is None else list(files)
    if listed and not all(isinstance(file, Mapping) for file in listed):
        raise BadUsage("files: what `upload_file` returns is needed, not the name of a file")
    return None if listed is None else [dict(file) for file in listed]
